/* What the pixels of a tile read, as a panel whose quads are four channels of one tap.
 *
 * Channels are interleaved once for each row of the window; its taps are then the same numbers from
 * another column on. Taps are counted through fours of channels, rows and columns of the window.
 */
#ifndef MATRIX_CHANNELS_H
#define MATRIX_CHANNELS_H

#include "matrix_gather.h"

enum {
    SIXTEEN = 16,
    SPAN = REACH + SIXTEEN, /* quads: whole vectors are written */
};

/* Columns that a run reads, of which `first` to `last` lie in the map. */
typedef struct {
    int size, first, last;
} gather_span;

static gather_span span_of(const micro_window *w, const gather_run *run)
{
    int size = (run->count - 1) * w->stride_x + (w->kernel_width - 1) * w->dilation_x + 1;
    int first = micro_least(micro_most(0, -run->x), size);
    return (gather_span){size, first, micro_most(first, micro_least(size, w->width - run->x))};
}

static inline __m128i sixteen_read(const uint8_t *from, __m128i sign)
{
    return _mm_xor_si128(_mm_loadu_si128((const __m128i *)from), sign);
}

/* Interleave a row of four channels from the span's first column in the map on; `left` bytes of the
 * last channel may be read. */
static inline void span_row(const uint8_t *row, ptrdiff_t plane, ptrdiff_t left,
                            const gather_span *s, __m128i sign, uint32_t *span)
{
    for (int x = s->first; x < s->last; x += SIXTEEN, row += SIXTEEN, left -= SIXTEEN) {
        uint8_t copy[4][SIXTEEN];
        const uint8_t *from = row;
        ptrdiff_t next = plane;
        if (left < SIXTEEN) {
            for (int i = 0; i < 4; i++)
                memcpy(copy[i], row + i * plane, (size_t)(s->last - x));
            from = copy[0];
            next = SIXTEEN;
        }
        __m128i a = sixteen_read(from, sign), b = sixteen_read(from + next, sign);
        __m128i c = sixteen_read(from + 2 * next, sign), d = sixteen_read(from + 3 * next, sign);
        __m128i low = _mm_unpacklo_epi8(a, b), high = _mm_unpackhi_epi8(a, b);
        __m128i more = _mm_unpacklo_epi8(c, d), last = _mm_unpackhi_epi8(c, d);
        __m128i *to = (__m128i *)(span + x);
        _mm_storeu_si128(to, _mm_unpacklo_epi16(low, more));
        _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low, more));
        _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(high, last));
        _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(high, last));
    }
}

/* Every second quad. */
static inline vector span_evens(const uint32_t *from)
{
    vector a = BITS(loadu)((const vector *)from), b = BITS(loadu)((const vector *)from + 1);
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

/* Write a run's quads of a tap. Vectors may reach over what later runs write, but not beyond the
 * panel of this tap; `step` is a constant of each call. */
ALWAYS_INLINE void span_tap(const uint32_t *from, int step, int at, int count, uint32_t *to)
{
    int u = 0;
    for (; u < count && at + u + LANES <= PIXELS; u += LANES)
        BITS(storeu)((vector *)(to + at + u), step == 1 ? BITS(loadu)((const vector *)(from + u))
                                                        : span_evens(from + 2 * u));
#if defined(__AVX512BW__)
    if (u < count)
        _mm512_mask_storeu_epi32(to + at + u, (__mmask16)((1u << (count - u)) - 1),
                                 step == 1 ? _mm512_loadu_si512(from + u)
                                           : span_evens(from + 2 * u));
#else
    for (; u < count; u++)
        to[at + u] = from[u * step];
#endif
}

/* Write the taps of a row of the window for a run. */
static inline void span_taps(const uint32_t *span, const micro_window *w, const gather_run *run,
                             uint32_t *to)
{
    int step = w->stride_x, next = w->dilation_x;
    const uint32_t *end = span + w->kernel_width * next;
    if (step == 1)
        for (; span < end; span += next, to += PIXELS)
            span_tap(span, 1, run->at, run->count, to);
    else if (step == 2)
        for (; span < end; span += next, to += PIXELS)
            span_tap(span, 2, run->at, run->count, to);
    else
        for (; span < end; span += next, to += PIXELS)
            for (int u = 0; u < run->count; u++)
                to[run->at + u] = span[u * step];
}

/* Write the panel of `count` pixels of the output from `first` on, of whole fours of channels. */
static void matrix_channels(const uint8_t *map, int8_t *panel, const micro_window *w, int first,
                            int count)
{
    gather_run runs[PIXELS];
    gather_span spans[PIXELS];
    uint32_t span[SPAN], *to = (uint32_t *)panel;
    ptrdiff_t plane = (ptrdiff_t)w->height * w->width;
    __m128i sign = _mm_set1_epi8((char)(w->flip ^ 0x80)); /* x + 128 of signed levels, 0 too */
    uint32_t nothing = (uint32_t)_mm_cvtsi128_si32(sign);
    int found = gather_runs(w, first, count, runs);
    for (int r = 0; r < found; r++)
        spans[r] = span_of(w, &runs[r]);
    for (int c = 0; c < w->channels; c += 4, map += 4 * plane)
        for (int i = 0; i < w->kernel_height; i++, to += w->kernel_width * PIXELS)
            for (int r = 0; r < found; r++) {
                gather_span s = spans[r];
                int y = runs[r].y + i * w->dilation_y;
                if (y < 0 || y >= w->height)
                    s.first = s.last = s.size;
                for (int x = 0; x < s.first; x++)
                    span[x] = nothing;
                ptrdiff_t at = (ptrdiff_t)y * w->width + runs[r].x + s.first;
                span_row(map + at, plane, (w->channels - c - 3) * plane - at, &s, sign, span);
                for (int x = s.last; x < s.size; x++)
                    span[x] = nothing;
                span_taps(span, w, &runs[r], to);
            }
}

#endif
