/* Gathers the input of a tile's pixels into a panel: see matrix.h.
 *
 * A kernel's file defines before it includes this file: MATRIX(what), PIXELS, and interleave(...),
 * which writes four rows with one byte per pixel to the next quad of a panel.
 */
#ifndef MATRIX_GATHER_H
#define MATRIX_GATHER_H

#include "gather.h"

enum {
    PITCH = 2 * PIXELS, /* bytes per row of one tap, and as many that a run may write after it */
    ROWS = 128,  /* taps that are gathered before they are interleaved */
    REACH = 256, /* largest width in bytes of a tile's windows and a vector in a row */
};

static const uint8_t zero_row[REACH] = {0};

/* Copy `size` bytes of a row from column `x` on, with zeros for columns outside. */
static void copy_with_border(const uint8_t *row, int width, int x, int size, uint8_t *copy)
{
    int first = micro_max(0, -x), end = micro_min(size, width - x);
    memset(copy, 0, (size_t)size);
    if (end > first)
        memcpy(copy + first, row + x + first, (size_t)(end - first));
}

/* Return the start of a channel's row `y` for a run: in the map, or in a copy with its border. */
static inline const uint8_t *find_row(const uint8_t *map, const micro_window *w,
                                      const gather_run *run, int channel, int y, uint8_t *copy)
{
    if (y < 0 || y >= w->height)
        return zero_row;
    int size = PIXELS * w->stride_x + (w->kernel_width - 1) * w->dilation_x;
    int rows = channel * w->height + y, remaining_rows = w->channels * w->height - rows;
    const uint8_t *row = map + (ptrdiff_t)rows * w->width;
    if (run->is_inside && (remaining_rows > 1 ? w->width : 0) + w->width - run->x >= size)
        return row + run->x;
    copy_with_border(row, w->width, run->x, size, copy);
    return copy;
}

#if defined(__x86_64__)
static inline void gather_stride_2(const uint8_t *from, uint8_t *to)
{
    __m128i mask = _mm_set1_epi16(0xFF);
    for (int u = 0; u < PIXELS; u += 16) {
        __m128i a = _mm_loadu_si128((const __m128i *)(from + 2 * u));
        __m128i b = _mm_loadu_si128((const __m128i *)(from + 2 * u + 16));
        a = _mm_packus_epi16(_mm_and_si128(a, mask), _mm_and_si128(b, mask));
        _mm_storeu_si128((__m128i *)(to + u), a);
    }
}
#endif

/* Write every `stride`th byte of a row for each tap of a row of the window. */
static inline void gather_taps(const uint8_t *from, const micro_window *w, uint8_t *to)
{
    int step = w->stride_x, dilation = w->dilation_x;
    const uint8_t *end = to + w->kernel_width * PITCH;
    if (step == 1)
        for (; to < end; to += PITCH, from += dilation)
            memcpy(to, from, PIXELS);
#if defined(__ARM_NEON)
    else if (step == 2 && dilation == 1) {
        for (; to + PITCH < end; to += 2 * PITCH, from += 2) {
            uint8x8x2_t pairs = vld2_u8(from);
            vst1_u8(to, pairs.val[0]);
            vst1_u8(to + PITCH, pairs.val[1]);
        }
        if (to < end)
            vst1_u8(to, vld2_u8(from).val[0]);
    }
#endif
#if defined(__x86_64__)
    else if (step == 2)
        for (; to < end; to += PITCH, from += dilation)
            gather_stride_2(from, to);
#endif
    else
        for (; to < end; to += PITCH, from += dilation)
            for (int u = 0; u < PIXELS; u++)
                to[u] = from[u * step];
}

static uint8_t *flush_rows(uint8_t (*rows)[PITCH], int quads, int offset, uint8_t *panel)
{
    for (; quads; quads--, rows += 4, panel += 4 * PIXELS)
        interleave(rows[0], rows[1], rows[2], rows[3], offset, panel);
    return panel;
}

/* Write the panel of 1x1 windows, whose taps are already in rows. */
static void gather_1x1(const uint8_t *map, uint8_t *panel, const micro_window *w, int first)
{
    ptrdiff_t plane = (ptrdiff_t)w->height * w->width;
    const uint8_t *row = map + first;
    int c = 0;
    for (; c + 4 <= w->channels; c += 4, row += 4 * plane, panel += 4 * PIXELS)
        interleave(row, row + plane, row + 2 * plane, row + 3 * plane, w->offset, panel);
    if (c < w->channels) {
        const uint8_t *rows[4];
        for (int i = 0; i < 4; i++)
            rows[i] = c + i < w->channels ? row + i * plane : zero_row;
        interleave(rows[0], rows[1], rows[2], rows[3], w->offset, panel);
    }
}

#if defined(__x86_64__)
static void gather_1x1_partial(const uint8_t *map, int8_t *panel, const micro_window *w,
                               int first, int count); /* in matrix_channels.h */
#endif

/* Write the panel of `count` pixels of the output, from `first` on. */
int32_t MATRIX(gather)(const uint8_t *map, int8_t *panel, const int32_t *window, int first,
                       int count)
{
    const micro_window *w = (const micro_window *)window;
    int is_1x1 = w->kernel_height == 1 && w->kernel_width == 1 && w->stride_x == 1;
    if (is_1x1 && w->height == 1 && w->left == 0 && w->out_width == w->width && count == PIXELS) {
        gather_1x1(map, (uint8_t *)panel, w, first);
        return 0;
    }
#if defined(__x86_64__)
    if (is_1x1 && w->height == 1 && w->left == 0 && w->out_width == w->width &&
        w->channels % 4 == 0) {
        gather_1x1_partial(map, panel, w, first, count);
        return 0;
    }
#endif
    uint8_t rows[ROWS][PITCH], copies[PIXELS][REACH], *to = (uint8_t *)panel;
    gather_run runs[PIXELS];
    int run_count = find_runs(w, first, count, runs), tap = 0;
    for (int c = 0; c < w->channels; c++)
        for (int i = 0; i < w->kernel_height; i++, tap += w->kernel_width) {
            if (tap + w->kernel_width > ROWS) {
                to = flush_rows(rows, tap / 4, w->offset, to);
                memmove(rows[0], rows[tap / 4 * 4], sizeof rows[0] * (size_t)(tap % 4));
                tap %= 4;
            }
            for (int r = 0; r < run_count; r++) {
                int y = runs[r].y + i * w->dilation_y;
                const uint8_t *from = find_row(map, w, &runs[r], c, y, copies[r]);
                gather_taps(from, w, rows[tap] + runs[r].at);
            }
        }
    for (; tap % 4; tap++)
        memset(rows[tap], 0, PIXELS);
    flush_rows(rows, tap / 4, w->offset, to);
    return 0;
}

#endif
