/* A depthwise convolution of one channel for x86-64, with 8-bit values widened to 16 bits.
 *
 * A band has the same layout as in depthwise.c. pmaddwd multiplies two adjacent values with two
 * taps and adds the products: read from one column on, it gives the sums of even pixels, and from
 * the next column on, those of odd ones. Two rows of the output share their loads. Processors with
 * 8-bit dot products do not widen the values: see depthwise_bytes.h.
 */
#include "levels_x86.h"
#include "requantize.h"

enum {
    PIXELS = SHORT_BYTES / 2, /* per tile */
    EIGHT = 8,
    MAX_SIDE = 5, /* of windows with specialized code */
    MAX_PAIRS = MAX_SIDE * 3,
};

/* The layout of a band. */
typedef struct {
    int phases, columns; /* per row; phases * columns elements */
    int rows;
} band_form;

static band_form compute_form(const micro_window *w)
{
    int wide = (w->out_width + EIGHT - 1) / EIGHT * EIGHT;
    return (band_form){
        .phases = w->stride_x,
        .columns = wide + (w->kernel_width - 1) * w->dilation_x / w->stride_x,
        .rows = (w->band - 1) * w->stride_y + (w->kernel_height - 1) * w->dilation_y + 1,
    };
}

static inline __m128i subtract_offset(__m128i levels, int offset)
{
    return _mm_sub_epi8(levels, _mm_set1_epi8((char)offset));
}

static inline __m128i add_offset(__m128i values, int offset)
{
    return _mm_add_epi16(values, _mm_set1_epi16((short)offset));
}

static inline __m128i widen_eight(__m128i levels, int offset)
{
    return offset == 0x80
               ? _mm_cvtepu8_epi16(levels)
               : add_offset(_mm_cvtepi8_epi16(subtract_offset(levels, offset)), offset);
}

/* Return the even bytes of sixteen; `widen_odd` returns the odd ones. */
static inline __m128i widen_even(__m128i levels, int offset)
{
    if (offset == 0x80)
        return _mm_and_si128(levels, _mm_set1_epi16(0xFF));
    levels = _mm_slli_epi16(subtract_offset(levels, offset), 8);
    return add_offset(_mm_srai_epi16(levels, 8), offset);
}

static inline __m128i widen_odd(__m128i levels, int offset)
{
    if (offset == 0x80)
        return _mm_srli_epi16(levels, 8);
    return add_offset(_mm_srai_epi16(subtract_offset(levels, offset), 8), offset);
}

static const int16_t lane_masks[2 * EIGHT] = {-1, -1, -1, -1, -1, -1, -1, -1};

static inline void store_eight(int16_t *to, __m128i x) { _mm_storeu_si128((__m128i *)to, x); }

static inline __m128i load_sixteen(const uint8_t *from)
{
    return _mm_loadu_si128((const __m128i *)from);
}

/* Widen every `step`th value, `count` of them, from `bytes` readable bytes. The rest of the
 * `capacity` elements is 0, and may be written. */
static inline void widen_values(const uint8_t *from, ptrdiff_t bytes, int step, int offset, int count,
                                int capacity, int16_t *to)
{
    int p = 0;
    if (step == 1 && count >= EIGHT) {
        for (; p < count - EIGHT; p += EIGHT)
            store_eight(to + p, widen_eight(_mm_loadu_si64(from + p), offset));
        p = count - EIGHT; /* the last vector overlaps the one before */
        store_eight(to + p, widen_eight(_mm_loadu_si64(from + p), offset));
        return;
    }
    if (step == 2 && count > EIGHT) {
        for (; p < count - EIGHT; p += EIGHT)
            store_eight(to + p, widen_even(load_sixteen(from + 2 * p), offset));
        p = count - EIGHT; /* it also begins a byte earlier: no byte after the values may be read */
        store_eight(to + p, widen_odd(load_sixteen(from + 2 * p - 1), offset));
        return;
    }
    if (step <= 2 && capacity >= EIGHT && bytes >= EIGHT * step) {
        __m128i mask = _mm_loadu_si128((const __m128i *)(lane_masks + EIGHT - count));
        __m128i levels = step == 1 ? widen_eight(_mm_loadu_si64(from), offset)
                                   : widen_even(load_sixteen(from), offset);
        store_eight(to, _mm_and_si128(levels, mask));
        return;
    }
    for (; p < count; p++)
        to[p] = (int16_t)read_value(from[p * step], offset);
}

/* Write the rows of a band that begins at the map's row `top`. Element p of a phase is the map's
 * column p * stride + phase - left. The elements before and after a row's values are already 0. */
static void fill_band(const uint8_t *map, const micro_window *w, const band_form *form, int top,
                      int16_t *band)
{
    const uint8_t *map_end = map + (ptrdiff_t)w->height * w->width;
    int line = form->phases * form->columns, step = w->stride_x;
    for (int phase = 0; phase < form->phases; phase++) {
        int shift = w->left - phase, first = shift > 0 ? (shift + step - 1) / step : 0;
        int end_column = w->width - 1 + shift < 0 ? 0 : (w->width - 1 + shift) / step + 1;
        int count = micro_min(end_column, form->columns) - first;
        int16_t *to = band + phase * form->columns + first;
        for (int i = 0; i < form->rows && count > 0; i++, to += line) {
            const uint8_t *from = map + (ptrdiff_t)(top + i) * w->width + (first * step - shift);
            if (top + i >= 0 && top + i < w->height)
                widen_values(from, map_end - from, step, w->offset, count, form->columns - first, to);
            else
                memset(to, 0, sizeof *to * (size_t)count);
        }
    }
}

typedef struct {
    const micro_window *window;
    const int16_t *weights;
    band_form form;
    float factor;
    int32_t bias;
    int low, high;
} channel;

/* The sums of a row's even pixels, and of its odd ones. */
typedef struct {
    short_vector values[2];
} tile_row;

static inline void add_pair(tile_row *s, const int16_t *at, short_vector weights)
{
    short_vector even = SHORT_BITS(loadu)((const short_vector *)at);
    short_vector odd = SHORT_BITS(loadu)((const short_vector *)(at + 1));
    s->values[0] = OF_SHORT(add_epi32)(s->values[0], OF_SHORT(madd_epi16)(even, weights));
    s->values[1] = OF_SHORT(add_epi32)(s->values[1], OF_SHORT(madd_epi16)(odd, weights));
}

static inline short_vector pack_weights(int16_t first, int16_t second)
{
    uint32_t packed = (uint32_t)(uint16_t)first | (uint32_t)(uint16_t)second << 16;
    return OF_SHORT(set1_epi32)((int32_t)packed);
}

static inline short_vector requantize_tile(short_vector sum, const channel *c)
{
    short_reals real = OF_SHORT(mul_ps)(OF_SHORT(cvtepi32_ps)(sum), OF_SHORT(set1_ps)(c->factor));
    real = OF_SHORT(max_ps)(real, OF_SHORT(set1_ps)((float)c->low));
    return OF_SHORT(cvtps_epi32)(OF_SHORT(min_ps)(real, OF_SHORT(set1_ps)((float)c->high)));
}

/* Write the quantized values of a tile, or the first `count` of them. */
static inline void write_row(const channel *c, const tile_row *s, uint8_t *y, int count)
{
    short_vector mask = OF_SHORT(set1_epi32)(0xFF);
    short_vector even = SHORT_BITS(and)(requantize_tile(s->values[0], c), mask);
    short_vector odd = SHORT_BITS(and)(requantize_tile(s->values[1], c), mask);
    short_vector pixels = SHORT_BITS(or)(even, OF_SHORT(slli_epi32)(odd, 8));
    uint8_t partial[PIXELS], *to = count < PIXELS ? partial : y;
#if defined(__AVX2__)
    __m128i levels = _mm_packus_epi32(_mm256_castsi256_si128(pixels),
                                      _mm256_extracti128_si256(pixels, 1));
    _mm_storeu_si128((__m128i *)to, levels);
#else
    _mm_storeu_si64(to, _mm_packus_epi32(pixels, pixels));
#endif
    if (count < PIXELS)
        for (int u = 0; u < count; u++)
            y[u] = partial[u];
}

/* Write two rows of the output; `band` is the start of the first one. The second row goes to
 * `second`. If there is none, `second` is `first`, which is written last. `side` and `stride` are
 * constants of each call. */
ALWAYS_INLINE void write_strip(const channel *c, const int16_t *band, uint8_t *first,
                               uint8_t *second, int side, int stride)
{
    int width = c->window->out_width, columns = c->form.columns;
    int pairs_per_row = side == 2 ? 2 : (side + 1) / 2; /* pairs per row, phase by phase */
    short_vector pairs[MAX_PAIRS], bias = OF_SHORT(set1_epi32)(c->bias);
    UNROLL
    for (int i = 0; i < side; i++) {
        int at = i * pairs_per_row;
        UNROLL
        for (int phase = 0; phase < stride; phase++)
            UNROLL
            for (int j = phase; j < side; j += 2 * stride, at++)
                pairs[at] = pack_weights(c->weights[i * side + j],
                                         j + stride < side ? c->weights[i * side + j + stride] : 0);
    }
    for (int x = 0; x < width; x += PIXELS) {
        int from = micro_max(0, micro_min(x, width - PIXELS)); /* the last tile overlaps */
        tile_row above = {{bias, bias}}, below = above;
        UNROLL
        for (int i = 0; i < side + stride; i++) {
            const int16_t *row = band + i * stride * columns + from;
            int at = 0;
            UNROLL
            for (int phase = 0; phase < stride; phase++)
                UNROLL
                for (int j = phase; j < side; j += 2 * stride, at++) {
                    const int16_t *tap_pixels = row + phase * columns + j / stride;
                    if (i < side)
                        add_pair(&above, tap_pixels, pairs[i * pairs_per_row + at]);
                    if (i >= stride)
                        add_pair(&below, tap_pixels, pairs[(i - stride) * pairs_per_row + at]);
                }
        }
        write_row(c, &below, second + from, width - from);
        write_row(c, &above, first + from, width - from);
    }
}

#define STRIP(name, side, stride) \
    static void name(const channel *c, const int16_t *band, uint8_t *first, uint8_t *second) \
    { \
        write_strip(c, band, first, second, side, stride); \
    }
STRIP(write_2x2_s2, 2, 2)
STRIP(write_3x3_s1, 3, 1)
STRIP(write_3x3_s2, 3, 2)
STRIP(write_5x5_s1, 5, 1)
STRIP(write_5x5_s2, 5, 2)

/* Write a row of any window, one tap after another. */
static void write_any_row(const channel *c, const int16_t *band, uint8_t *y)
{
    const micro_window *w = c->window;
    int width = w->out_width, line = c->form.phases * c->form.columns;
    for (int x = 0; x < width; x += PIXELS) {
        int at = micro_max(0, micro_min(x, width - PIXELS));
        const int16_t *weights = c->weights;
        short_vector bias = OF_SHORT(set1_epi32)(c->bias);
        tile_row s = {{bias, bias}};
        for (int i = 0; i < w->kernel_height; i++)
            for (int j = 0; j < w->kernel_width; j++, weights++) {
                int across = j * w->dilation_x;
                const int16_t *from = band + at + i * w->dilation_y * line;
                from += across % c->form.phases * c->form.columns + across / c->form.phases;
                add_pair(&s, from, pack_weights(*weights, 0));
            }
        write_row(c, &s, y + at, width - at);
    }
}

static void write_any(const channel *c, const int16_t *band, uint8_t *first, uint8_t *second)
{
    if (second != first)
        write_any_row(c, band + c->window->stride_y * c->form.phases * c->form.columns, second);
    write_any_row(c, band, first);
}

typedef void (*strip_kind)(const channel *, const int16_t *, uint8_t *, uint8_t *);

/* Return ten times the side of a square window plus its stride; 0 without specialized code. */
static inline int get_square_kind(const micro_window *w)
{
    int size = w->kernel_height, stride = w->stride_y;
    int square = w->kernel_width == size && w->stride_x == stride;
    if (!square || w->dilation_x != 1 || w->dilation_y != 1 || stride > 2 || w->band == 1)
        return 0;
    return 10 * size + stride;
}

static strip_kind select_strip(const micro_window *w)
{
    switch (get_square_kind(w)) {
    case 22:
        return write_2x2_s2;
    case 31:
        return write_3x3_s1;
    case 32:
        return write_3x3_s2;
    case 51:
        return write_5x5_s1;
    case 52:
        return write_5x5_s2;
    default:
        return write_any;
    }
}

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#include "depthwise_bytes.h"
#endif

static inline vector widen_to_sums(const uint8_t *from, int offset)
{
#if defined(__AVX512BW__)
    __m128i levels = load_sixteen(from);
#elif defined(__AVX2__)
    __m128i levels = _mm_loadu_si64(from);
#else
    __m128i levels = _mm_loadu_si32(from);
#endif
    if (offset == 0x80)
        return OF(cvtepu8_epi32)(levels);
    vector values = OF(cvtepi8_epi32)(subtract_offset(levels, offset));
    return OF(add_epi32)(values, OF(set1_epi32)(offset));
}

/* Write a plane of windows with one tap, without bands. */
static void write_1x1_plane(const channel *c, const uint8_t *map, uint8_t *y)
{
    int pixels = c->window->out_height * c->window->out_width, p = 0;
    int offset = c->window->offset;
    vector weight = OF(set1_epi32)((uint16_t)*c->weights), bias = OF(set1_epi32)(c->bias);
    reals factor = OF(set1_ps)(c->factor);
    reals low = OF(set1_ps)((float)c->low), high = OF(set1_ps)((float)c->high);
    for (; p + LANES <= pixels; p += LANES) {
        vector x = OF(madd_epi16)(widen_to_sums(map + p, offset), weight);
        write_levels(OF(add_epi32)(x, bias), factor, low, high, y + p);
    }
    for (; p < pixels; p++)
        y[p] = requantize_one(c->bias + read_value(map[p], offset) * *c->weights, c->factor,
                              c->low, c->high);
}

/* Write the quantized values of one filter's plane. Weights are int16, padded with zeros to full
 * quads; `band` is memory for the window's band, which has one row or an even number of rows. After
 * it there is a tile and one more element, which may be read but are not used. */
int32_t micro_depthwise_x86_levels(const uint8_t *map, const int16_t *weights, const int32_t *bias,
                                   const float *factor, uint8_t *y, const int32_t *window,
                                   int16_t *band, int low, int high)
{
    const micro_window *w = (const micro_window *)window;
    channel c = {w, weights, compute_form(w), *factor, *bias, low, high};
    if (w->kernel_height * w->kernel_width * w->stride_y * w->stride_x == 1 &&
        w->out_height == w->height && w->out_width == w->width) {
        write_1x1_plane(&c, map, y);
        return 0;
    }
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    plane_kind plane = select_plane(w);
    if (plane) {
        write_plane(plane, &c, map, y, (uint8_t *)band);
        return 0;
    }
#endif
    int line = c.form.phases * c.form.columns, step = w->band > 1 ? 2 : 1;
    strip_kind write = select_strip(w);
    memset(band, 0, sizeof *band * (size_t)(c.form.rows * line + PIXELS + 1));
    for (int top = 0; top < w->out_height; top += w->band) {
        fill_band(map, w, &c.form, top * w->stride_y - w->top, band);
        for (int r = 0; r < w->band && top + r < w->out_height; r += step) {
            uint8_t *first = y + (ptrdiff_t)(top + r) * w->out_width;
            int has_second = step == 2 && top + r + 1 < w->out_height;
            write(&c, band + (ptrdiff_t)r * w->stride_y * line, first,
                  has_second ? first + w->out_width : first);
        }
    }
    return 0;
}
