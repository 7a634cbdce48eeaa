/* Panels with quads of four channels of one tap.
 *
 * Groups of four channels are interleaved once, with the border that windows reach. The input of a
 * tap of a row is then the same quads, from another column on. Taps are ordered by group of
 * channels, row and column of the window.
 */
#ifndef MATRIX_CHANNELS_H
#define MATRIX_CHANNELS_H

#include "matrix_gather.h"

enum { SIXTEEN = 16 };

/* Rows and columns that windows reach, and the distance in quads between groups of four
   channels. */
typedef struct {
    int height, width;
    ptrdiff_t four;
} interleaved_size;

static interleaved_size get_interleaved_size(const micro_window *w)
{
    int height = (w->out_height - 1) * w->stride_y + (w->kernel_height - 1) * w->dilation_y + 1;
    int width = (w->out_width - 1) * w->stride_x + (w->kernel_width - 1) * w->dilation_x + 1;
    return (interleaved_size){height, width, (ptrdiff_t)height * width + SIXTEEN};
}

/* Return the byte of zero in panels: their unsigned bytes are values minus the smallest one. */
static inline __m128i get_zero(const micro_window *w)
{
    return _mm_set1_epi8((char)(0x80 - w->offset));
}

static inline __m128i load_sixteen(const uint8_t *from, __m128i zero)
{
    return _mm_add_epi8(_mm_loadu_si128((const __m128i *)from), zero);
}

/* Interleave `count` values of a row of four channels; `readable` bytes of the last channel can be
 * read. Writes full groups of sixteen. */
static inline void interleave_row(const uint8_t *row, ptrdiff_t plane, ptrdiff_t readable,
                                  int count, __m128i zero, uint32_t *interleaved)
{
    for (int x = 0; x < count; x += SIXTEEN, row += SIXTEEN, readable -= SIXTEEN) {
        uint8_t copy[4][SIXTEEN];
        const uint8_t *from = row;
        ptrdiff_t next = plane;
        if (readable < SIXTEEN) {
            for (int i = 0; i < 4; i++)
                memcpy(copy[i], row + i * plane, (size_t)(count - x));
            from = copy[0];
            next = SIXTEEN;
        }
        __m128i a = load_sixteen(from, zero), b = load_sixteen(from + next, zero);
        __m128i c = load_sixteen(from + 2 * next, zero);
        __m128i d = load_sixteen(from + 3 * next, zero);
        __m128i low_ab = _mm_unpacklo_epi8(a, b), high_ab = _mm_unpackhi_epi8(a, b);
        __m128i low_cd = _mm_unpacklo_epi8(c, d), high_cd = _mm_unpackhi_epi8(c, d);
        __m128i *to = (__m128i *)(interleaved + x);
        _mm_storeu_si128(to, _mm_unpacklo_epi16(low_ab, low_cd));
        _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low_ab, low_cd));
        _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(high_ab, high_cd));
        _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(high_ab, high_cd));
    }
}

static inline void fill_quads(uint32_t *interleaved, int count, uint32_t zero_quad)
{
    for (int x = 0; x < count; x++)
        interleaved[x] = zero_quad;
}

/* Interleave four channels, from the first one's plane on, with `readable` readable bytes. Rows are
 * written in order, because full groups of sixteen also write the elements after a row. */
static void interleave_four(const uint8_t *map, ptrdiff_t readable, const micro_window *w,
                            uint32_t *interleaved)
{
    interleaved_size size = get_interleaved_size(w);
    ptrdiff_t plane = (ptrdiff_t)w->height * w->width;
    __m128i zero = get_zero(w);
    uint32_t zero_quad = (uint32_t)_mm_cvtsi128_si32(zero);
    int first = micro_min(w->left, size.width), count = micro_min(w->width, size.width - first);
    for (int i = 0; i < size.height; i++, interleaved += size.width) {
        int y = i - w->top, end = first;
        if (y >= 0 && y < w->height) {
            ptrdiff_t at = (ptrdiff_t)y * w->width;
            interleave_row(map + at, plane, readable - 3 * plane - at, count, zero,
                           interleaved + first);
            end += count;
        }
        fill_quads(interleaved, first, zero_quad);
        fill_quads(interleaved + end, size.width - end, zero_quad);
    }
}

/* Load every `step`th quad; `step` is a constant of each call. */
static inline vector load_interleaved(const uint32_t *from, int step)
{
    vector a = BITS(loadu)((const vector *)from);
    if (step == 1)
        return a;
    vector b = BITS(loadu)((const vector *)from + 1);
#if defined(__AVX512BW__)
    __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_epi32(a, even, b);
#elif defined(__AVX2__)
    __m256 shuffled = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88);
    return _mm256_permute4x64_epi64(_mm256_castps_si256(shuffled), 0xD8);
#else
    return _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b), 0x88));
#endif
}

/* The pieces of a panel that are copied for any tap. The first `full_count` ones are copied as full
 * vectors, which also write what later pieces overwrite; the others do not write after the
 * panel. */
typedef struct {
    int full_count, count;
    struct {
        int to, from, count;
    } of[PIXELS + PIXELS / LANES];
} panel_pieces;

static void find_panel_pieces(const micro_window *w, int first, int count, panel_pieces *p)
{
    gather_run runs[PIXELS];
    int run_count = find_runs(w, first, count, runs), width = get_interleaved_size(w).width;
    int piece_pixels = w->stride_x > 2 ? 1 : LANES;
    p->full_count = p->count = 0;
    for (int r = 0; r < run_count; r++) {
        int from = (runs[r].y + w->top) * width + runs[r].x + w->left;
        for (int u = 0; u < runs[r].count; u += piece_pixels, p->count++) {
            p->of[p->count].to = runs[r].at + u;
            p->of[p->count].from = from + u * w->stride_x;
            p->of[p->count].count = micro_min(piece_pixels, runs[r].count - u);
            p->full_count += piece_pixels == LANES && runs[r].at + u + LANES <= PIXELS;
        }
    }
}

/* Copy the quads of a tap. */
ALWAYS_INLINE void copy_tap(const uint32_t *from, const panel_pieces *p, int step, uint32_t *to)
{
    int i = 0;
    for (; i < p->full_count; i++)
        BITS(storeu)((vector *)(to + p->of[i].to), load_interleaved(from + p->of[i].from, step));
    for (; i < p->count; i++) {
#if defined(__AVX512BW__)
        __mmask16 mask = (__mmask16)((1u << p->of[i].count) - 1);
        _mm512_mask_storeu_epi32(to + p->of[i].to, mask,
                                 load_interleaved(from + p->of[i].from, step));
#else
        for (int u = 0; u < p->of[i].count; u++)
            to[p->of[i].to + u] = from[p->of[i].from + u * step];
#endif
    }
}

ALWAYS_INLINE void copy_taps(const uint32_t *interleaved, const micro_window *w,
                             const panel_pieces *p, int step, uint32_t *to)
{
    interleaved_size size = get_interleaved_size(w);
    int below = w->dilation_y * size.width;
    for (int c = 0; c < w->channels; c += 4, interleaved += size.four)
        for (int i = 0; i < w->kernel_height; i++)
            for (int j = 0; j < w->kernel_width; j++, to += PIXELS)
                copy_tap(interleaved + i * below + j * w->dilation_x, p, step, to);
}

/* Interleave one of the `fours` groups of four channels. After the quads of a group there is space
 * for sixteen more, which are written; after the last group for another sixteen, which are read. */
int32_t MATRIX(deal)(const uint8_t *map, uint32_t *interleaved, const int32_t *window, int four,
                     int fours)
{
    const micro_window *w = (const micro_window *)window;
    ptrdiff_t four_planes = 4 * (ptrdiff_t)w->height * w->width;
    interleave_four(map + four * four_planes, (fours - four) * four_planes, w,
                    interleaved + four * get_interleaved_size(w).four);
    return 0;
}

/* Write the panel of `count` pixels of the output, from `first` on, from interleaved channels. */
int32_t MATRIX(copy)(const uint32_t *interleaved, int8_t *panel, const int32_t *window, int first,
                     int count)
{
    const micro_window *w = (const micro_window *)window;
    panel_pieces pieces;
    find_panel_pieces(w, first, count, &pieces);
    if (w->stride_x == 2)
        copy_taps(interleaved, w, &pieces, 2, (uint32_t *)panel);
    else
        copy_taps(interleaved, w, &pieces, 1, (uint32_t *)panel);
    return 0;
}

/* Interleave some pixels of 1x1 windows, which are already in rows. */
static void gather_1x1_partial(const uint8_t *map, int8_t *panel, const micro_window *w,
                               int first, int count)
{
    uint32_t *to = (uint32_t *)panel;
    ptrdiff_t plane = w->width;
    map += first;
    for (int c = 0; c < w->channels; c += 4, map += 4 * plane, to += PIXELS)
        interleave_row(map, plane, (w->channels - c - 3) * plane - first, count,
                       get_zero(w), to);
}

#endif
