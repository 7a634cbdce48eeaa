/* Where the windows of some pixels in a row read a map. */
#ifndef GATHER_H
#define GATHER_H

#include "micro.h"

/* Pixels of a tile that lie in one row of the output. */
typedef struct {
    int at, count; /* the first one's place in the tile, and how many there are */
    int y, x;      /* where the first one's window begins in the map; may lie outside */
    int inside;    /* whether all columns do lie inside */
} gather_run;

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

/* Whether all that a run reads lies in the map. */
ALWAYS_INLINE int gather_within(const micro_window *w, const gather_run *run)
{
    int below = run->y + (w->kernel_height - 1) * w->dilation_y;
    return run->inside && run->y >= 0 && below < w->height;
}

#endif
