/* Planes of a depthwise convolution, for processors with 8-bit dot products.
 *
 * A band has unsigned values: those of the map minus the smallest one. Vectors contain, for each pixel,
 * the four values from it on, which are multiplied with four taps of a row at once. Two rows of the
 * output share them.
 */
#ifndef DEPTHWISE_BYTES_H
#define DEPTHWISE_BYTES_H

enum { MAX_QUADS = MAX_SIDE * 2 };

typedef struct {
    const micro_window *window;
    int quads[MAX_QUADS]; /* four taps each, row by row */
    int pitch, bias;
    float factor, low, high;
} plane_form;

/* Copy values minus the smallest one. */
static inline void copy_plane_row(const uint8_t *from, int count, int zero, uint8_t *to)
{
    vector shift = OF(set1_epi8)((char)zero);
#if defined(__AVX512BW__)
    for (int u = 0; u < count; u += 64) {
        __mmask64 mask = ~0ull >> (64 - micro_min(count - u, 64));
        __m512i x = _mm512_maskz_loadu_epi8(mask, from + u);
        _mm512_mask_storeu_epi8(to + u, mask, _mm512_add_epi8(x, shift));
    }
#else
    int u = 0;
    for (; u + 32 <= count; u += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(from + u));
        _mm256_storeu_si256((__m256i *)(to + u), _mm256_add_epi8(x, shift));
    }
    for (; u < count; u++)
        to[u] = (uint8_t)(from[u] + zero);
#endif
}

/* Write the rows of a band that begins at the map's row `top`; the elements before and after a
 * row's values are already set. */
static void fill_plane_band(const uint8_t *map, const plane_form *f, int rows, int top,
                            uint8_t *band)
{
    const micro_window *w = f->window;
    int zero = 0x80 - w->offset;
    int count = micro_min(w->width, f->pitch - w->left);
    for (int i = 0; i < rows && count > 0; i++) {
        uint8_t *to = band + i * f->pitch + w->left;
        if (top + i >= 0 && top + i < w->height)
            copy_plane_row(map + (ptrdiff_t)(top + i) * w->width, count, zero, to);
        else
            memset(to, zero, (size_t)count);
    }
}

/* Return the four values from each of LANES pixels on, with pixels `stride` values apart. */
static inline vector load_quads(const uint8_t *from, int stride)
{
    __m128i stride_1 = _mm_setr_epi8(0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6);
    __m128i stride_2 = _mm_setr_epi8(0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8, 9);
#if defined(__AVX512BW__)
    __m512i indices = stride == 1
                          ? _mm512_setr_epi32(0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6)
                          : _mm512_setr_epi32(0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8, 9);
    __m512i x = _mm512_permutexvar_epi32(indices, _mm512_loadu_si512(from));
    return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(stride == 1 ? stride_1 : stride_2));
#else
    __m256i x = _mm256_loadu2_m128i((const __m128i *)(from + 4 * stride), (const __m128i *)from);
    return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(stride == 1 ? stride_1 : stride_2));
#endif
}

static inline vector add_quad(vector sum, vector x, int quad)
{
#if defined(__AVX512BW__)
    return _mm512_dpbusd_epi32(sum, x, _mm512_set1_epi32(quad));
#else
    return _mm256_dpbusd_avx_epi32(sum, x, _mm256_set1_epi32(quad));
#endif
}

/* Write the quantized values of LANES sums, or the first `count` of them. */
static inline void write_sums(const plane_form *f, vector sum, uint8_t *y, int count)
{
    reals factor = OF(set1_ps)(f->factor), low = OF(set1_ps)(f->low), high = OF(set1_ps)(f->high);
#if defined(__AVX512BW__)
    __mmask16 mask = (__mmask16)(0xFFFF >> (LANES - micro_min(count, LANES)));
    _mm_mask_storeu_epi8(y, mask, _mm512_cvtepi32_epi8(requantized_sums(sum, factor, low, high)));
#else
    uint8_t partial[LANES];
    write_levels(sum, factor, low, high, count < LANES ? partial : y);
    if (count < LANES)
        memcpy(y, partial, (size_t)count);
#endif
}

/* Write two rows of the output; `band` is the start of the first one. The second row goes to
 * `second`. If there is none, `second` is `first`, which is written last. `side` and `stride` are
 * constants of each call. */
ALWAYS_INLINE void write_plane_strip(const plane_form *f, const uint8_t *band, uint8_t *first,
                                     uint8_t *second, int side, int stride)
{
    int width = f->window->out_width, quads_per_row = (side + 3) / 4;
    for (int x = 0; x < width; x += LANES) {
        int from = micro_max(0, micro_min(x, width - LANES)); /* the last tile overlaps */
        vector above = OF(set1_epi32)(f->bias), below = above;
        UNROLL
        for (int i = 0; i < side + stride; i++)
            UNROLL
            for (int j = 0; j < quads_per_row; j++) {
                vector x = load_quads(band + i * f->pitch + from * stride + 4 * j, stride);
                if (i < side)
                    above = add_quad(above, x, f->quads[i * quads_per_row + j]);
                if (i >= stride)
                    below = add_quad(below, x, f->quads[(i - stride) * quads_per_row + j]);
            }
        write_sums(f, below, second + from, width - from);
        write_sums(f, above, first + from, width - from);
    }
}

#define PLANE(name, side, stride) \
    static void name(const plane_form *f, const uint8_t *band, uint8_t *first, uint8_t *second) \
    { \
        write_plane_strip(f, band, first, second, side, stride); \
    }
PLANE(plane_2x2_s2, 2, 2)
PLANE(plane_3x3_s1, 3, 1)
PLANE(plane_3x3_s2, 3, 2)
PLANE(plane_5x5_s1, 5, 1)
PLANE(plane_5x5_s2, 5, 2)

typedef void (*plane_kind)(const plane_form *, const uint8_t *, uint8_t *, uint8_t *);

/* Return the function for a window; NULL if there is none. */
static plane_kind select_plane(const micro_window *w)
{
    switch (get_square_kind(w)) {
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

/* Set the constants of a filter's plane; `weights` are the taps row by row. */
static void set_plane_weights(plane_form *f, const int16_t *weights)
{
    int side = f->window->kernel_width, quads_per_row = (side + 3) / 4, sum = 0;
    int8_t taps[MAX_QUADS][4] = {{0}};
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            taps[i * quads_per_row + j / 4][j % 4] = (int8_t)weights[i * side + j];
            sum += weights[i * side + j];
        }
    memcpy(f->quads, taps, sizeof taps);
    f->bias += (f->window->offset - 0x80) * sum;
}

/* Write the plane of one filter. */
static void write_plane(plane_kind write, const channel *c, const uint8_t *map, uint8_t *y,
                        uint8_t *band)
{
    const micro_window *w = c->window;
    plane_form f = {.window = w, .bias = c->bias, .factor = c->factor};
    f.low = (float)c->low, f.high = (float)c->high;
    f.pitch = c->form.phases * c->form.columns;
    set_plane_weights(&f, c->weights);
    memset(band, 0x80 - w->offset, (size_t)(c->form.rows * f.pitch));
    for (int top = 0; top < w->out_height; top += w->band) {
        fill_plane_band(map, &f, c->form.rows, top * w->stride_y - w->top, band);
        for (int r = 0; r < w->band && top + r < w->out_height; r += 2) {
            uint8_t *first = y + (ptrdiff_t)(top + r) * w->out_width;
            int has_second = top + r + 1 < w->out_height;
            write(&f, band + r * w->stride_y * f.pitch, first,
                  has_second ? first + w->out_width : first);
        }
    }
}

#endif
