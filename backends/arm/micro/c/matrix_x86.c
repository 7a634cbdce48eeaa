/* Matrix products for x86-64: eight filters by up to 32 pixels, in quads of taps or channels.
 *
 * Panels have unsigned values; the values of a quad of one pixel are adjacent. With VNNI, one
 * instruction multiplies them with signed weights and adds the four products. Without VNNI, both
 * are widened to 16 bits, taps 0 and 2 separately from 1 and 3, because sums of 8-bit products
 * would saturate. Every variant uses the same panels and weights, and gives the same bits.
 */
#define MATRIX(what) micro_matrix_x86_##what
#include "levels_x86.h"

enum {
    PIXELS = 32,
    FILTERS = 8,
};

/* Vectors of pixels, and filters, with sums in registers. */
enum {
    WIDE = 2,
    HIGH = LANES == 16 ? 8 : 4,
};

/* Load a row of values for a quad's panel: four taps of the first pixel, of the second, and so
   on. */
static inline short_vector load_row(const uint8_t *from, short_vector zero)
{
    return OF_SHORT(add_epi8)(SHORT_BITS(loadu)((const short_vector *)from), zero);
}

/* Write four vectors; with AVX2, unpacking works per half, so first halves are written first. */
static inline void store_rows(short_vector a, short_vector b, short_vector c, short_vector d,
                              uint8_t *panel)
{
    short_vector *to = (short_vector *)panel;
#if defined(__AVX2__)
    SHORT_BITS(storeu)(to, _mm256_permute2x128_si256(a, b, 0x20));
    SHORT_BITS(storeu)(to + 1, _mm256_permute2x128_si256(c, d, 0x20));
    SHORT_BITS(storeu)(to + 2, _mm256_permute2x128_si256(a, b, 0x31));
    SHORT_BITS(storeu)(to + 3, _mm256_permute2x128_si256(c, d, 0x31));
#else
    SHORT_BITS(storeu)(to, a);
    SHORT_BITS(storeu)(to + 1, b);
    SHORT_BITS(storeu)(to + 2, c);
    SHORT_BITS(storeu)(to + 3, d);
#endif
}

static inline void interleave(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                              const uint8_t *d, int offset, uint8_t *panel)
{
    /* Unsigned bytes: values minus the smallest one. */
    short_vector zero = OF_SHORT(set1_epi8)((char)(0x80 - offset));
    for (int u = 0; u < PIXELS; u += SHORT_BYTES, panel += 4 * SHORT_BYTES) {
        short_vector row_a = load_row(a + u, zero), row_b = load_row(b + u, zero);
        short_vector row_c = load_row(c + u, zero), row_d = load_row(d + u, zero);
        short_vector low_ab = OF_SHORT(unpacklo_epi8)(row_a, row_b);
        short_vector high_ab = OF_SHORT(unpackhi_epi8)(row_a, row_b);
        short_vector low_cd = OF_SHORT(unpacklo_epi8)(row_c, row_d);
        short_vector high_cd = OF_SHORT(unpackhi_epi8)(row_c, row_d);
        store_rows(OF_SHORT(unpacklo_epi16)(low_ab, low_cd),
                   OF_SHORT(unpackhi_epi16)(low_ab, low_cd),
                   OF_SHORT(unpacklo_epi16)(high_ab, high_cd),
                   OF_SHORT(unpackhi_epi16)(high_ab, high_cd), panel);
    }
}

#include "matrix_channels.h"

typedef struct {
    const int8_t *panel, *weights;
    const int32_t *bias;
    const float *factor;
    int quads, low, high;
} matrix_block;

/* Quads of pixels or of a filter, prepared for multiplication, and a block's weights for one
   quad. */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
typedef vector quads;
typedef struct {
    int8_t bytes[FILTERS][4];
} block_quads;

static inline quads load_pixel_quads(vector x) { return x; }

/* Return the weights unchanged. */
static inline const block_quads *prepare_weights(const int8_t *w, int count, block_quads *buffer)
{
    (void)count, (void)buffer;
    return (const block_quads *)w;
}

static inline quads load_filter_quads(const block_quads *w, int f)
{
    int32_t four;
    memcpy(&four, w->bytes[f], sizeof four);
    return OF(set1_epi32)(four);
}

static inline vector add_products(vector sum, quads x, quads w)
{
#if defined(__AVX512VNNI__)
    return _mm512_dpbusd_epi32(sum, x, w);
#else
    return _mm256_dpbusd_avx_epi32(sum, x, w);
#endif
}
#else
typedef struct {
    vector even, odd; /* in 16 bits */
} quads;
typedef struct {
    int32_t even[FILTERS], odd[FILTERS];
} block_quads;

static inline quads load_pixel_quads(vector x)
{
    return (quads){BITS(and)(x, OF(set1_epi16)(0xFF)), OF(srli_epi16)(x, 8)};
}

static const block_quads *prepare_weights(const int8_t *w, int count, block_quads *buffer)
{
    for (int k = 0; k < count; k++)
        for (int f = 0; f < FILTERS; f += SHORT_BYTES / 4, w += SHORT_BYTES) {
            short_vector x = SHORT_BITS(loadu)((const short_vector *)w);
            short_vector even = OF_SHORT(srai_epi16)(OF_SHORT(slli_epi16)(x, 8), 8);
            SHORT_BITS(storeu)((short_vector *)(buffer[k].even + f), even);
            SHORT_BITS(storeu)((short_vector *)(buffer[k].odd + f), OF_SHORT(srai_epi16)(x, 8));
        }
    return buffer;
}

static inline quads load_filter_quads(const block_quads *w, int f)
{
    return (quads){OF(set1_epi32)(w->even[f]), OF(set1_epi32)(w->odd[f])};
}

static inline vector add_products(vector sum, quads x, quads w)
{
    vector odd = OF(madd_epi16)(x.odd, w.odd);
    return OF(add_epi32)(OF(add_epi32)(sum, OF(madd_epi16)(x.even, w.even)), odd);
}
#endif

/* Some quads of a block. Their weights are prepared once for all pixels. */
enum { CHUNK = 128 };

typedef struct {
    const matrix_block *block;
    const int8_t *panel;
    int count, begins, ends;
    const block_quads *weights;
    block_quads buffer[CHUNK];
    int32_t sums[FILTERS][PIXELS]; /* partial sums, if there are several chunks */
} matrix_chunk;

static void prepare_chunk(matrix_chunk *c, const matrix_block *b, int first)
{
    const int8_t *weights = b->weights + 4 * FILTERS * first;
    c->block = b;
    c->panel = b->panel + 4 * PIXELS * first;
    c->count = micro_min(CHUNK, b->quads - first);
    c->begins = first == 0;
    c->ends = first + CHUNK >= b->quads;
    c->weights = prepare_weights(weights, c->count, c->buffer);
}

/* Compute the sums of filters `f` to `f` + HIGH for pixels `p` to `p` + wide * LANES; `wide` is a
 * constant of each call. Returns whether they are complete; otherwise they are stored. */
ALWAYS_INLINE int sum_tile(matrix_chunk *c, int f, int p, int wide, vector (*sums)[WIDE])
{
    const int8_t *panel = c->panel + 4 * p;
    UNROLL
    for (int i = 0; i < HIGH; i++)
        UNROLL
        for (int v = 0; v < wide; v++)
            sums[i][v] = c->begins ? OF(set1_epi32)(c->block->bias[f + i])
                                   : BITS(loadu)((vector *)&c->sums[f + i][p + v * LANES]);
    for (int k = 0; k < c->count; k++, panel += 4 * PIXELS) {
        quads x[WIDE];
        UNROLL
        for (int v = 0; v < wide; v++)
            x[v] = load_pixel_quads(BITS(loadu)((const vector *)(panel + 4 * v * LANES)));
        UNROLL
        for (int i = 0; i < HIGH; i++) {
            quads w = load_filter_quads(&c->weights[k], f + i);
            UNROLL
            for (int v = 0; v < wide; v++)
                sums[i][v] = add_products(sums[i][v], x[v], w);
        }
    }
    if (c->ends)
        return 1;
    UNROLL
    for (int i = 0; i < HIGH; i++)
        UNROLL
        for (int v = 0; v < wide; v++)
            BITS(storeu)((vector *)&c->sums[f + i][p + v * LANES], sums[i][v]);
    return 0;
}

ALWAYS_INLINE void write_level_tile(matrix_chunk *c, uint8_t *y, ptrdiff_t plane, int f, int p,
                                    int wide)
{
    const matrix_block *b = c->block;
    vector sums[HIGH][WIDE];
    if (!sum_tile(c, f, p, wide, sums))
        return;
    reals low = OF(set1_ps)((float)b->low), high = OF(set1_ps)((float)b->high);
    y += f * plane + p;
    UNROLL
    for (int i = 0; i < HIGH; i++, y += plane) {
        reals factor = OF(set1_ps)(b->factor[f + i]);
        UNROLL
        for (int v = 0; v < wide; v++)
            write_levels(sums[i][v], factor, low, high, y + v * LANES);
    }
}

ALWAYS_INLINE void write_real_tile(matrix_chunk *c, float *y, ptrdiff_t plane, int f, int p,
                                   int wide)
{
    const matrix_block *b = c->block;
    vector sums[HIGH][WIDE];
    if (!sum_tile(c, f, p, wide, sums))
        return;
    y += f * plane + p;
    UNROLL
    for (int i = 0; i < HIGH; i++, y += plane) {
        reals factor = OF(set1_ps)(b->factor[f + i]);
        UNROLL
        for (int v = 0; v < wide; v++)
            OF(storeu_ps)(y + v * LANES, OF(mul_ps)(OF(cvtepi32_ps)(sums[i][v]), factor));
    }
}

/* A full block of filters, for full vectors of pixels. */
#define BLOCK(name, tile, type) \
    static void name(const matrix_block *b, type *y, ptrdiff_t plane, int count) \
    { \
        matrix_chunk chunk; \
        for (int first = 0; first < b->quads; first += CHUNK) { \
            int p = 0; \
            prepare_chunk(&chunk, b, first); \
            for (; p + WIDE * LANES <= count; p += WIDE * LANES) \
                for (int f = 0; f < FILTERS; f += HIGH) \
                    tile(&chunk, y, plane, f, p, WIDE); \
            for (; p < count; p += LANES) \
                for (int f = 0; f < FILTERS; f += HIGH) \
                    tile(&chunk, y, plane, f, p, 1); \
        } \
    }
BLOCK(write_level_block, write_level_tile, uint8_t)
BLOCK(write_real_block, write_real_tile, float)

/* All blocks; the last one may be partial, at the last filter or pixel. A block processes all
 * panels before the next block, because planes may map to the same cache sets. */
#define BLOCKS(block, type) \
    do { \
        for (int f = 0; f < filters; f += FILTERS) { \
            int block_filters = micro_min(FILTERS, filters - f); \
            type *to = y + (ptrdiff_t)f * plane; \
            b.panel = panel; \
            for (int p = 0; p < count; p += PIXELS, to += PIXELS, b.panel += 4 * PIXELS * quads) { \
                int pixels = micro_min(PIXELS, count - p); \
                if (block_filters == FILTERS && pixels == PIXELS) { \
                    block(&b, to, plane, PIXELS); \
                    continue; \
                } \
                type partial[FILTERS][PIXELS]; \
                block(&b, partial[0], PIXELS, (pixels + LANES - 1) / LANES * LANES); \
                for (int i = 0; i < block_filters; i++) \
                    memcpy(to + (ptrdiff_t)i * plane, partial[i], sizeof(type) * (size_t)pixels); \
            } \
            b.weights += 4 * FILTERS * b.quads; \
            b.bias += FILTERS; \
            b.factor += FILTERS; \
        } \
    } while (0)

/* Write the quantized values of `filters` filters for the first `count` pixels of consecutive
 * panels; planes of filters are `plane` bytes apart. */
int32_t MATRIX(levels)(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                       const float *factor, uint8_t *y, int quads, int filters, int plane,
                       int count, int low, int high)
{
    matrix_block b = {panel, weights, bias, factor, quads, low, high};
    BLOCKS(write_level_block, uint8_t);
    return 0;
}

/* Write the dequantized values, sum * factor. */
int32_t MATRIX(reals)(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                      const float *factor, float *y, int quads, int filters, int plane, int count)
{
    matrix_block b = {panel, weights, bias, factor, quads, 0, 0};
    BLOCKS(write_real_block, float);
    return 0;
}
