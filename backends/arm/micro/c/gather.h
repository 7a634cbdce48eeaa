/* The positions in a map that the windows of consecutive pixels read. */
#ifndef GATHER_H
#define GATHER_H

#include "micro.h"

/* Pixels of a tile in one row of the output. */
typedef struct {
    int at, count; /* the first pixel's position in the tile, and their count */
    int y, x;      /* the position of the first pixel's window in the map; may be outside */
    int inside;    /* whether all columns are inside */
} gather_run;

static int gather_runs(const micro_window *w, int first_pixel, int count, gather_run *runs)
{
    int run_count = 0, y = first_pixel / w->out_width, x = first_pixel % w->out_width;
    int reach = (w->kernel_width - 1) * w->dilation_x;
    for (int at = 0; at < count; y++, x = 0) {
        gather_run *run = &runs[run_count++];
        run->at = at;
        run->count = micro_min(count - at, w->out_width - x);
        run->y = y * w->stride_y - w->top;
        run->x = x * w->stride_x - w->left;
        run->inside = run->x >= 0 && run->x + (run->count - 1) * w->stride_x + reach < w->width;
        at += run->count;
    }
    return run_count;
}

/* Whether a run reads only pixels inside the map. */
ALWAYS_INLINE int gather_within(const micro_window *w, const gather_run *run)
{
    int below = run->y + (w->kernel_height - 1) * w->dilation_y;
    return run->inside && run->y >= 0 && below < w->height;
}

#endif
