/* What the pixels of a tile read, as a panel whose quads are four channels of one tap.
 *
 * Fours of channels are interleaved once, with the border that windows reach over; a tap of a row is
 * then the same quads from another column on. Taps are counted through fours of channels, rows and
 * columns of the window.
 */
#ifndef MATRIX_CHANNELS_H
#define MATRIX_CHANNELS_H

#include "matrix_gather.h"

enum { SIXTEEN = 16 };

/* Rows and columns that windows reach over, and quads from a four of channels to the next. */
typedef struct {
    int height, width;
    ptrdiff_t four;
} dealt_size;

static dealt_size dealt_size_of(const micro_window *w)
{
    int height = (w->out_height - 1) * w->stride_y + (w->kernel_height - 1) * w->dilation_y + 1;
    int width = (w->out_width - 1) * w->stride_x + (w->kernel_width - 1) * w->dilation_x + 1;
    return (dealt_size){height, width, (ptrdiff_t)height * width + SIXTEEN};
}

static inline __m128i deal_sign(const micro_window *w)
{
    return _mm_set1_epi8((char)(w->flip ^ 0x80)); /* x + 128 of signed levels, 0 too */
}

static inline __m128i deal_read(const uint8_t *from, __m128i sign)
{
    return _mm_xor_si128(_mm_loadu_si128((const __m128i *)from), sign);
}

/* Interleave `count` levels of a row of four channels, whose last has `left` bytes that may be read;
 * whole sixteens are written. */
static inline void deal_row(const uint8_t *row, ptrdiff_t plane, ptrdiff_t left, int count,
                            __m128i sign, uint32_t *dealt)
{
    for (int x = 0; x < count; x += SIXTEEN, row += SIXTEEN, left -= SIXTEEN) {
        uint8_t copy[4][SIXTEEN];
        const uint8_t *from = row;
        ptrdiff_t next = plane;
        if (left < SIXTEEN) {
            for (int i = 0; i < 4; i++)
                memcpy(copy[i], row + i * plane, (size_t)(count - x));
            from = copy[0];
            next = SIXTEEN;
        }
        __m128i a = deal_read(from, sign), b = deal_read(from + next, sign);
        __m128i c = deal_read(from + 2 * next, sign), d = deal_read(from + 3 * next, sign);
        __m128i low = _mm_unpacklo_epi8(a, b), high = _mm_unpackhi_epi8(a, b);
        __m128i more = _mm_unpacklo_epi8(c, d), last = _mm_unpackhi_epi8(c, d);
        __m128i *to = (__m128i *)(dealt + x);
        _mm_storeu_si128(to, _mm_unpacklo_epi16(low, more));
        _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low, more));
        _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(high, last));
        _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(high, last));
    }
}

static inline void deal_nothing(uint32_t *dealt, int count, uint32_t nothing)
{
    for (int x = 0; x < count; x++)
        dealt[x] = nothing;
}

/* Interleave four channels, from the first one's plane on; `left` bytes may be read from there. Rows
 * are written in turn, as whole sixteens reach over what follows them. */
static void deal_four(const uint8_t *map, ptrdiff_t left, const micro_window *w, uint32_t *dealt)
{
    dealt_size size = dealt_size_of(w);
    ptrdiff_t plane = (ptrdiff_t)w->height * w->width;
    __m128i sign = deal_sign(w);
    uint32_t nothing = (uint32_t)_mm_cvtsi128_si32(sign);
    int first = micro_least(w->left, size.width), count = micro_least(w->width, size.width - first);
    for (int i = 0; i < size.height; i++, dealt += size.width) {
        int y = i - w->top, last = first;
        if (y >= 0 && y < w->height) {
            ptrdiff_t at = (ptrdiff_t)y * w->width;
            deal_row(map + at, plane, left - 3 * plane - at, count, sign, dealt + first);
            last += count;
        }
        deal_nothing(dealt, first, nothing);
        deal_nothing(dealt + last, size.width - last, nothing);
    }
}

/* Every `step`th quad; `step` is a constant of each call. */
static inline vector dealt_vector(const uint32_t *from, int step)
{
    vector a = BITS(loadu)((const vector *)from);
    if (step == 1)
        return a;
    vector b = BITS(loadu)((const vector *)from + 1);
#if defined(__AVX512BW__)
    __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_epi32(a, even, b);
#elif defined(__AVX2__)
    __m256 both = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88);
    return _mm256_permute4x64_epi64(_mm256_castps_si256(both), 0xD8);
#else
    return _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b), 0x88));
#endif
}

/* What a panel's quads of any tap are copied from: the first `whole` pieces by whole vectors, which
 * reach over what later ones write, the others without what lies behind the panel. */
typedef struct {
    int whole, count;
    struct {
        int to, from, count;
    } of[PIXELS + PIXELS / LANES];
} panel_pieces;

static void panel_pieces_of(const micro_window *w, int first, int count, panel_pieces *p)
{
    gather_run runs[PIXELS];
    int found = gather_runs(w, first, count, runs), width = dealt_size_of(w).width;
    int most = w->stride_x > 2 ? 1 : LANES;
    p->whole = p->count = 0;
    for (int r = 0; r < found; r++) {
        int from = (runs[r].y + w->top) * width + runs[r].x + w->left;
        for (int u = 0; u < runs[r].count; u += most, p->count++) {
            p->of[p->count].to = runs[r].at + u;
            p->of[p->count].from = from + u * w->stride_x;
            p->of[p->count].count = micro_least(most, runs[r].count - u);
            p->whole += most == LANES && runs[r].at + u + LANES <= PIXELS;
        }
    }
}

/* Copy a tap's quads. */
ALWAYS_INLINE void copy_tap(const uint32_t *from, const panel_pieces *p, int step, uint32_t *to)
{
    int i = 0;
    for (; i < p->whole; i++)
        BITS(storeu)((vector *)(to + p->of[i].to), dealt_vector(from + p->of[i].from, step));
    for (; i < p->count; i++) {
#if defined(__AVX512BW__)
        __mmask16 some = (__mmask16)((1u << p->of[i].count) - 1);
        _mm512_mask_storeu_epi32(to + p->of[i].to, some,
                                 dealt_vector(from + p->of[i].from, step));
#else
        for (int u = 0; u < p->of[i].count; u++)
            to[p->of[i].to + u] = from[p->of[i].from + u * step];
#endif
    }
}

ALWAYS_INLINE void copy_taps(const uint32_t *dealt, const micro_window *w, const panel_pieces *p,
                             int step, uint32_t *to)
{
    dealt_size size = dealt_size_of(w);
    int below = w->dilation_y * size.width;
    for (int c = 0; c < w->channels; c += 4, dealt += size.four)
        for (int i = 0; i < w->kernel_height; i++)
            for (int j = 0; j < w->kernel_width; j++, to += PIXELS)
                copy_tap(dealt + i * below + j * w->dilation_x, p, step, to);
}

/* Interleave one of the `fours` of channels. Quads of a four have room for sixteen more behind them,
 * which are written, and those of the last for as many again, which are read. */
int32_t MATRIX(deal)(const uint8_t *map, uint32_t *dealt, const int32_t *window, int four, int fours)
{
    const micro_window *w = (const micro_window *)window;
    ptrdiff_t four_planes = 4 * (ptrdiff_t)w->height * w->width;
    deal_four(map + four * four_planes, (fours - four) * four_planes, w,
              dealt + four * dealt_size_of(w).four);
    return 0;
}

/* Write the panel of `count` pixels of the output from `first` on, of interleaved channels. */
int32_t MATRIX(copy)(const uint32_t *dealt, int8_t *panel, const int32_t *window, int first,
                     int count)
{
    const micro_window *w = (const micro_window *)window;
    panel_pieces pieces;
    panel_pieces_of(w, first, count, &pieces);
    if (w->stride_x == 2)
        copy_taps(dealt, w, &pieces, 2, (uint32_t *)panel);
    else
        copy_taps(dealt, w, &pieces, 1, (uint32_t *)panel);
    return 0;
}

/* Interleave some pixels of 1x1 windows, which lie in rows already. */
static void matrix_some(const uint8_t *map, int8_t *panel, const micro_window *w, int first,
                        int count)
{
    uint32_t *to = (uint32_t *)panel;
    ptrdiff_t plane = w->width;
    map += first;
    for (int c = 0; c < w->channels; c += 4, map += 4 * plane, to += PIXELS)
        deal_row(map, plane, (w->channels - c - 3) * plane - first, count, deal_sign(w), to);
}

#endif
