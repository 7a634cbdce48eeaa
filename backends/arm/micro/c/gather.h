/* Where the windows of up to PIXELS pixels read a map, whose numbers are of the type ELEMENT: both
 * are defined before this is included.
 */
#ifndef GATHER_H
#define GATHER_H

#include "micro.h"

enum { REACH = 256 }; /* most numbers of a row that a tile's windows and a vector reach over */

/* Pixels of a tile that lie in one row of the output. */
typedef struct {
    int at, count; /* the first one's place in the tile, and how many there are */
    int y, x;      /* where the first one's window begins in the map; may lie outside */
    int inside;    /* whether all columns do lie inside */
} gather_run;

static const ELEMENT gather_nothing[REACH] = {0};

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

/* Copy `size` numbers of a row from column `x` on, with zeros for those that lie outside. */
static void gather_bordered(const ELEMENT *row, int width, int x, int size, ELEMENT *copy)
{
    int first = micro_most(0, -x), last = micro_least(size, width - x);
    memset(copy, 0, (size_t)size * sizeof *copy);
    if (last > first)
        memcpy(copy + first, row + x + first, (size_t)(last - first) * sizeof *copy);
}

/* Return where row `y` of a channel begins for a run: in the map, or copied with its border. */
static inline const ELEMENT *gather_row(const ELEMENT *map, const micro_window *w,
                                        const gather_run *run, int channel, int y, ELEMENT *copy)
{
    if (y < 0 || y >= w->height)
        return gather_nothing;
    int size = PIXELS * w->stride_x + (w->kernel_width - 1) * w->dilation_x;
    int rows = channel * w->height + y, left = w->channels * w->height - rows;
    const ELEMENT *row = map + (ptrdiff_t)rows * w->width;
    if (run->inside && (left > 1 ? w->width : 0) + w->width - run->x >= size)
        return row + run->x;
    gather_bordered(row, w->width, run->x, size, copy);
    return copy;
}

#endif
