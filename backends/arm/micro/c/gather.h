/* The positions in a map that the windows of consecutive pixels read. */
#ifndef GATHER_H
#define GATHER_H

#include "micro.h"

/* Pixels of a tile in one row of the output. */
typedef struct {
    int at, count; /* the first pixel's position in the tile, and their count */
    int y, x;      /* the position of the first pixel's window in the map; may be outside */
    int is_inside; /* whether all columns are inside */
} gather_run;

/* Find the runs of `count` pixels from `first_pixel` on; return their number. */
static int find_runs(const micro_window *w, int first_pixel, int count, gather_run *runs)
{
    int run_count = 0, y = first_pixel / w->out_width, x = first_pixel % w->out_width;
    int reach = (w->kernel_width - 1) * w->dilation_x;
    for (int at = 0; at < count; y++, x = 0) {
        gather_run *run = &runs[run_count++];
        run->at = at;
        run->count = micro_min(count - at, w->out_width - x);
        run->y = y * w->stride_y - w->top;
        run->x = x * w->stride_x - w->left;
        run->is_inside = run->x >= 0 && run->x + (run->count - 1) * w->stride_x + reach < w->width;
        at += run->count;
    }
    return run_count;
}

/* Return whether a run reads only pixels inside the map. */
ALWAYS_INLINE int is_run_inside(const micro_window *w, const gather_run *run)
{
    int below = run->y + (w->kernel_height - 1) * w->dilation_y;
    return run->is_inside && run->y >= 0 && below < w->height;
}

#endif
