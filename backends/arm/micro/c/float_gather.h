/* Gathers the input of the tiles of a float convolution into panels.
 *
 * A kernel's file defines before it includes this file:
 *
 *   FLOATS(what)      the names of its functions
 *   PIXELS            floats in a panel per tap: the input of that many pixels' windows
 *
 * and, if it has a faster way for some windows, FAST_GATHER(w, map, panel, first, channels), which
 * writes a full tile and returns whether it did.
 *
 * Taps are ordered by channel, row and column of the window.
 */
#ifndef FLOAT_GATHER_H
#define FLOAT_GATHER_H

#include "gather.h"

#include <arm_neon.h>

/* The input of the taps of some channels for some pixels: floats `stride` apart in planes. */
typedef struct {
    const float *from;
    float *to;
    ptrdiff_t plane, step;
    int channels, stride;
} float_source;

/* Vectors that cover `count` floats, at least four; the last overlaps the one before it. */
#define VECTORS(u, count) \
    for (int u = 0, more = 1; more; more = u < (count) - 4, u = micro_min(u + 4, (count) - 4))

static inline void float_copy_scalar(float_source t, int count)
{
    for (; t.channels; t.channels--, t.from += t.plane, t.to += t.step)
        for (int u = 0; u < count; u++)
            t.to[u] = t.from[u * t.stride];
}

static inline void float_copy_contiguous(float_source t, int count)
{
    for (; t.channels; t.channels--, t.from += t.plane, t.to += t.step)
        VECTORS(u, count) vst1q_f32(t.to + u, vld1q_f32(t.from + u));
}

/* Reads one float after the last. */
static inline void float_copy_stride_2(float_source t, int count)
{
    for (; t.channels; t.channels--, t.from += t.plane, t.to += t.step)
        VECTORS(u, count) vst1q_f32(t.to + u, vld2q_f32(t.from + 2 * u).val[0]);
}

/* Copy the input of a tap and of the one after it. */
static inline void float_copy_pairs(float_source t, int count)
{
    for (; t.channels; t.channels--, t.from += t.plane, t.to += t.step)
        VECTORS(u, count)
        {
            float32x4x2_t pairs = vld2q_f32(t.from + 2 * u);
            vst1q_f32(t.to + u, pairs.val[0]);
            vst1q_f32(t.to + PIXELS + u, pairs.val[1]);
        }
}

#define FULL_OR_PARTIAL(copied, t, count) (count) == PIXELS ? copied(t, PIXELS) : copied(t, count)

/* `at_map_end`: whether the last float of the last channel is also the last one of the map. */
static void float_copy(float_source t, int count, int at_map_end)
{
    if (count < 4 || t.stride > 2) {
        float_copy_scalar(t, count);
    } else if (t.stride == 1) {
        FULL_OR_PARTIAL(float_copy_contiguous, t, count);
    } else {
        t.channels -= at_map_end;
        FULL_OR_PARTIAL(float_copy_stride_2, t, count);
        t.from += t.channels * t.plane;
        t.to += t.channels * t.step;
        t.channels = at_map_end;
        float_copy_scalar(t, count);
    }
}

/* Write the input of one row of the window for a run, in the map's row `y`; positions outside keep
 * their values. */
static void gather_row(const micro_window *w, const gather_run *run, float_source t, int at_map_end)
{
    const float *row = t.from;
    float *panel = t.to;
    for (int j = 0; j < w->kernel_width; j++) {
        int x = run->x + j * w->dilation_x, first = 0, end = run->count;
        if (!run->is_inside) {
            first = x < 0 ? (-x + t.stride - 1) / t.stride : 0;
            end = x < w->width ? micro_min(end, (w->width - 1 - x) / t.stride + 1) : 0;
        }
        t.from = row + (x + first * t.stride);
        t.to = panel + j * PIXELS + first;
        if (run->is_inside && t.stride == 2 && w->dilation_x == 1 && j + 1 < w->kernel_width &&
            end >= 4) {
            FULL_OR_PARTIAL(float_copy_pairs, t, end);
            j++;
        } else if (end > first) {
            float_copy(t, end - first, at_map_end && x + (end - 1) * t.stride == w->width - 1);
        }
    }
}

/* Write the input of `count` pixels of the output, from `first` on, for some channels. */
int32_t FLOATS(gather)(const float *map, float *panel, const int32_t *window, int first, int count,
                       int channel, int channels)
{
    const micro_window *w = (const micro_window *)window;
    gather_run runs[PIXELS];
    int run_count = find_runs(w, first, count, runs), is_inside = count == PIXELS;
    int area = w->kernel_height * w->kernel_width, plane = w->height * w->width;
#ifdef FAST_GATHER
    if (is_inside && FAST_GATHER(w, map + (ptrdiff_t)channel * plane, panel, first, channels))
        return 0;
#endif
    for (int r = 0; r < run_count; r++)
        is_inside &= is_run_inside(w, &runs[r]);
    if (!is_inside)
        memset(panel, 0, sizeof *panel * (size_t)(channels * area * PIXELS));
    for (int r = 0; r < run_count; r++)
        for (int i = 0; i < w->kernel_height; i++) {
            int y = runs[r].y + i * w->dilation_y;
            if (y < 0 || y >= w->height)
                continue;
            float_source t = {
                .from = map + (ptrdiff_t)channel * plane + (ptrdiff_t)y * w->width,
                .to = panel + i * w->kernel_width * PIXELS + runs[r].at,
                .plane = plane,
                .step = area * PIXELS,
                .channels = channels,
                .stride = w->stride_x,
            };
            gather_row(w, &runs[r], t, channel + channels == w->channels && y + 1 == w->height);
        }
    return 0;
}

#endif
