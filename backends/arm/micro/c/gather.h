/* What the windows of up to eight pixels read, as rows of eight bytes, one row for each tap.
 *
 * Rows have room for sixteen: a run's eight bytes may reach beyond the tile.
 *
 * Included by matrix.h behind the kernel's own `interleave`.
 */
#ifndef GATHER_H
#define GATHER_H

#include "requantize.h"

enum {
    PIXELS = 8,
    PITCH = 16,
    ROWS = 128,  /* taps that are gathered before they are interleaved */
    REACH = 256, /* most bytes of a row that eight windows and a vector reach over */
};

/* Pixels of a tile that lie in one row of the output. */
typedef struct {
    int at, count; /* the first one's place in the tile, and how many there are */
    int y, x;      /* where the first one's window begins in the map; may lie outside */
    int inside;    /* whether all columns do lie inside */
} gather_run;

static const uint8_t gather_nothing[REACH] = {0};

static int gather_runs(const micro_window *w, int first, int count, gather_run *runs)
{
    int found = 0, y = first / w->out_width, x = first % w->out_width;
    int reach = (w->kernel_width - 1) * w->dilation_x;
    for (int at = 0; at < count; y++, x = 0) {
        gather_run *run = &runs[found++];
        run->at = at;
        run->count = micro_least(count - at, w->out_width - x);
        run->y = y * w->stride_y - w->top;
        run->x = x * w->stride_x - w->left;
        run->inside = run->x >= 0 && run->x + (run->count - 1) * w->stride_x + reach < w->width;
        at += run->count;
    }
    return found;
}

/* Copy `size` bytes of a row from column `x` on, with zeros for those that lie outside. */
static void gather_bordered(const uint8_t *row, int width, int x, int size, uint8_t *copy)
{
    int first = micro_most(0, -x), last = micro_least(size, width - x);
    memset(copy, 0, (size_t)size);
    if (last > first)
        memcpy(copy + first, row + x + first, (size_t)(last - first));
}

/* Return where row `y` of a channel begins for a run: in the map, or copied with its border. */
static inline const uint8_t *gather_row(const uint8_t *map, const micro_window *w,
                                        const gather_run *run, int channel, int y, uint8_t *copy)
{
    if (y < 0 || y >= w->height)
        return gather_nothing;
    int size = PIXELS * w->stride_x + (w->kernel_width - 1) * w->dilation_x;
    int rows = channel * w->height + y, left = w->channels * w->height - rows;
    const uint8_t *row = map + (ptrdiff_t)rows * w->width;
    if (run->inside && (left > 1 ? w->width : 0) + w->width - run->x >= size)
        return row + run->x;
    gather_bordered(row, w->width, run->x, size, copy);
    return copy;
}

/* Write, for each tap of a row of the window, every `stride`th byte from where it begins. */
static inline void gather_taps(const uint8_t *from, const micro_window *w, uint8_t *to)
{
    int step = w->stride_x, next = w->dilation_x;
    const uint8_t *end = to + w->kernel_width * PITCH;
    if (step == 1)
        for (; to < end; to += PITCH, from += next)
            memcpy(to, from, PIXELS);
#if defined(__ARM_NEON)
    else if (step == 2 && next == 1) {
        for (; to + PITCH < end; to += 2 * PITCH, from += 2) {
            uint8x8x2_t both = vld2_u8(from);
            vst1_u8(to, both.val[0]);
            vst1_u8(to + PITCH, both.val[1]);
        }
        if (to < end)
            vst1_u8(to, vld2_u8(from).val[0]);
    }
#endif
    else
        for (; to < end; to += PITCH, from += next)
            for (int u = 0; u < PIXELS; u++)
                to[u] = from[u * step];
}

#endif
