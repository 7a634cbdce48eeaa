/* Planes of a depthwise convolution where a processor has products of bytes.
 *
 * A band holds unsigned levels, signed ones as x + 128. Vectors are made of the four levels from each
 * pixel on, which are multiplied with four taps of a row at once; two rows of the output share them.
 */
#ifndef DEPTHWISE_BYTES_H
#define DEPTHWISE_BYTES_H

enum { MOST_QUADS = MOST_SIDE * 2 };

typedef struct {
    const micro_window *window;
    int quads[MOST_QUADS]; /* four taps each, row after row */
    int pitch, bias;
    float factor, low, high;
} plane_form;

static inline vector plane_sign(const micro_window *w)
{
    return OF(set1_epi8)((char)(w->flip ^ 0x80));
}

/* Copy levels, signed ones as x + 128. */
static inline void plane_row(const uint8_t *from, int count, vector sign, uint8_t *to)
{
#if defined(__AVX512BW__)
    for (int u = 0; u < count; u += 64) {
        __mmask64 some = ~0ull >> (64 - micro_least(count - u, 64));
        __m512i x = _mm512_maskz_loadu_epi8(some, from + u);
        _mm512_mask_storeu_epi8(to + u, some, _mm512_xor_si512(x, sign));
    }
#else
    int u = 0;
    for (; u + 32 <= count; u += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(from + u));
        _mm256_storeu_si256((__m256i *)(to + u), _mm256_xor_si256(x, sign));
    }
    for (; u < count; u++)
        to[u] = (uint8_t)(from[u] ^ _mm256_extract_epi8(sign, 0));
#endif
}

/* Write the rows of a band whose first is the map's row `top`; what is beside a row's levels is
 * there already. */
static void plane_band(const uint8_t *map, const plane_form *f, int rows, int top, uint8_t *band)
{
    const micro_window *w = f->window;
    vector sign = plane_sign(w);
    int count = micro_least(w->width, f->pitch - w->left);
    for (int i = 0; i < rows && count > 0; i++) {
        uint8_t *to = band + i * f->pitch + w->left;
        if (top + i >= 0 && top + i < w->height)
            plane_row(map + (ptrdiff_t)(top + i) * w->width, count, sign, to);
        else
            memset(to, w->flip ^ 0x80, (size_t)count);
    }
}

/* The four levels from each of LANES pixels on, which are `stride` levels apart. */
static inline vector plane_quads(const uint8_t *from, int stride)
{
    __m128i near = _mm_setr_epi8(0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6);
    __m128i apart = _mm_setr_epi8(0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8, 9);
#if defined(__AVX512BW__)
    __m512i each = stride == 1 ? _mm512_setr_epi32(0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6)
                               : _mm512_setr_epi32(0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8, 9);
    __m512i x = _mm512_permutexvar_epi32(each, _mm512_loadu_si512(from));
    return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(stride == 1 ? near : apart));
#else
    __m256i x = _mm256_loadu2_m128i((const __m128i *)(from + 4 * stride), (const __m128i *)from);
    return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(stride == 1 ? near : apart));
#endif
}

static inline vector plane_added(vector sum, vector x, int quad)
{
#if defined(__AVX512BW__)
    return _mm512_dpbusd_epi32(sum, x, _mm512_set1_epi32(quad));
#else
    return _mm256_dpbusd_avx_epi32(sum, x, _mm256_set1_epi32(quad));
#endif
}

/* The levels of LANES sums, or the first `count` of them. */
static inline void plane_write(const plane_form *f, vector sum, uint8_t *y, int count)
{
    reals factor = OF(set1_ps)(f->factor), low = OF(set1_ps)(f->low), high = OF(set1_ps)(f->high);
#if defined(__AVX512BW__)
    __mmask16 some = (__mmask16)(0xFFFF >> (LANES - micro_least(count, LANES)));
    _mm_mask_storeu_epi8(y, some, _mm512_cvtepi32_epi8(requantized_sums(sum, factor, low, high)));
#else
    uint8_t part[LANES];
    write_levels(sum, factor, low, high, count < LANES ? part : y);
    if (count < LANES)
        memcpy(y, part, (size_t)count);
#endif
}

/* Two rows of the output from where the first begins in the band; the second goes to `second`, which
 * is `first` where there is none: it is written before. `side` and `stride` are constants of each
 * call. */
ALWAYS_INLINE void plane_strip(const plane_form *f, const uint8_t *band, uint8_t *first,
                               uint8_t *second, int side, int stride)
{
    int width = f->window->out_width, each = (side + 3) / 4;
    for (int x = 0; x < width; x += LANES) {
        int from = micro_most(0, micro_least(x, width - LANES)); /* the last tile overlaps */
        vector above = OF(set1_epi32)(f->bias), below = above;
        UNROLL
        for (int i = 0; i < side + stride; i++)
            UNROLL
            for (int j = 0; j < each; j++) {
                vector x = plane_quads(band + i * f->pitch + from * stride + 4 * j, stride);
                if (i < side)
                    above = plane_added(above, x, f->quads[i * each + j]);
                if (i >= stride)
                    below = plane_added(below, x, f->quads[(i - stride) * each + j]);
            }
        plane_write(f, below, second + from, width - from);
        plane_write(f, above, first + from, width - from);
    }
}

#define PLANE(name, side, stride) \
    static void name(const plane_form *f, const uint8_t *band, uint8_t *first, uint8_t *second) \
    { \
        plane_strip(f, band, first, second, side, stride); \
    }
PLANE(plane_2x2_s2, 2, 2)
PLANE(plane_3x3_s1, 3, 1)
PLANE(plane_3x3_s2, 3, 2)
PLANE(plane_5x5_s1, 5, 1)
PLANE(plane_5x5_s2, 5, 2)

typedef void (*plane_kind)(const plane_form *, const uint8_t *, uint8_t *, uint8_t *);

/* NULL: windows that have no code here. */
static plane_kind plane_of(const micro_window *w)
{
    switch (square_kind(w)) {
    case 22:
        return plane_2x2_s2;
    case 31:
        return plane_3x3_s1;
    case 32:
        return plane_3x3_s2;
    case 51:
        return plane_5x5_s1;
    case 52:
        return plane_5x5_s2;
    default:
        return NULL;
    }
}

/* What is the same for all of a filter's plane; `weights` are the taps of rows. */
static void plane_weights(plane_form *f, const int16_t *weights)
{
    int side = f->window->kernel_width, each = (side + 3) / 4, sum = 0;
    int8_t taps[MOST_QUADS][4] = {{0}};
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            taps[i * each + j / 4][j % 4] = (int8_t)weights[i * side + j];
            sum += weights[i * side + j];
        }
    memcpy(f->quads, taps, sizeof taps);
    if (!f->window->flip)
        f->bias -= 0x80 * sum;
}

/* Write a filter's plane. */
static void plane_levels(plane_kind write, const channel *c, const uint8_t *map, uint8_t *y,
                         uint8_t *band)
{
    const micro_window *w = c->window;
    plane_form f = {.window = w, .bias = c->bias, .factor = c->factor};
    f.low = (float)c->low, f.high = (float)c->high;
    f.pitch = c->form.phases * c->form.columns;
    plane_weights(&f, c->weights);
    memset(band, w->flip ^ 0x80, (size_t)(c->form.rows * f.pitch));
    for (int top = 0; top < w->out_height; top += w->band) {
        plane_band(map, &f, c->form.rows, top * w->stride_y - w->top, band);
        for (int r = 0; r < w->band && top + r < w->out_height; r += 2) {
            uint8_t *first = y + (ptrdiff_t)(top + r) * w->out_width;
            int both = top + r + 1 < w->out_height;
            write(&f, band + r * w->stride_y * f.pitch, first, both ? first + w->out_width : first);
        }
    }
}

#endif
