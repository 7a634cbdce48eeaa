/* What the tiles of a convolution of floats read, gathered into panels.
 *
 * A kernel's file defines before it includes this:
 *
 *   FLOATS(what)      its functions' names
 *   PIXELS            numbers of a panel for each tap: what the windows of as many pixels read
 *
 * and, where it has a faster way for some windows, GATHERED(w, map, panel, first, channels), which
 * writes a whole tile and tells whether it did.
 *
 * Taps are counted through channels, rows and columns of the window.
 */
#ifndef FLOAT_GATHER_H
#define FLOAT_GATHER_H

#include "gather.h"

#include <arm_neon.h>

/* What taps of some channels read for some pixels: numbers `stride` apart in planes. */
typedef struct {
    const float *from;
    float *to;
    ptrdiff_t plane, step;
    int channels, stride;
} float_taps;

/* Vectors that cover `count` numbers, four at least; the last overlaps the one before it. */
#define VECTORS(u, count) \
    for (int u = 0, more = 1; more; more = u < (count) - 4, u = micro_least(u + 4, (count) - 4))

static inline void float_single(float_taps t, int count)
{
    for (; t.channels; t.channels--, t.from += t.plane, t.to += t.step)
        for (int u = 0; u < count; u++)
            t.to[u] = t.from[u * t.stride];
}

static inline void float_near(float_taps t, int count)
{
    for (; t.channels; t.channels--, t.from += t.plane, t.to += t.step)
        VECTORS(u, count) vst1q_f32(t.to + u, vld1q_f32(t.from + u));
}

/* Reads one number behind the last. */
static inline void float_second(float_taps t, int count)
{
    for (; t.channels; t.channels--, t.from += t.plane, t.to += t.step)
        VECTORS(u, count) vst1q_f32(t.to + u, vld2q_f32(t.from + 2 * u).val[0]);
}

/* A tap and the one after it. */
static inline void float_both(float_taps t, int count)
{
    for (; t.channels; t.channels--, t.from += t.plane, t.to += t.step)
        VECTORS(u, count)
        {
            float32x4x2_t both = vld2q_f32(t.from + 2 * u);
            vst1q_f32(t.to + u, both.val[0]);
            vst1q_f32(t.to + PIXELS + u, both.val[1]);
        }
}

#define WHOLE(copied, t, count) (count) == PIXELS ? copied(t, PIXELS) : copied(t, count)

/* `last`: whether what is behind the last channel's last number is no memory of the map. */
static void float_copied(float_taps t, int count, int last)
{
    if (count < 4 || t.stride > 2) {
        float_single(t, count);
    } else if (t.stride == 1) {
        WHOLE(float_near, t, count);
    } else {
        t.channels -= last;
        WHOLE(float_second, t, count);
        t.from += t.channels * t.plane;
        t.to += t.channels * t.step;
        t.channels = last;
        float_single(t, count);
    }
}

/* Write what a row of the window reads for a run in the map's row `y`; what lies outside stays. */
static void float_row(const micro_window *w, const gather_run *run, float_taps t, int ends)
{
    const float *row = t.from;
    float *panel = t.to;
    for (int j = 0; j < w->kernel_width; j++) {
        int x = run->x + j * w->dilation_x, first = 0, last = run->count;
        if (!run->inside) {
            first = x < 0 ? (-x + t.stride - 1) / t.stride : 0;
            last = x < w->width ? micro_least(last, (w->width - 1 - x) / t.stride + 1) : 0;
        }
        t.from = row + (x + first * t.stride);
        t.to = panel + j * PIXELS + first;
        if (run->inside && t.stride == 2 && w->dilation_x == 1 && j + 1 < w->kernel_width &&
            last >= 4) {
            WHOLE(float_both, t, last);
            j++;
        } else if (last > first) {
            float_copied(t, last - first, ends && x + (last - 1) * t.stride == w->width - 1);
        }
    }
}

/* Write what `count` pixels of the output from `first` on read of some channels. */
int32_t FLOATS(gather)(const float *map, float *panel, const int32_t *window, int first, int count,
                       int channel, int channels)
{
    const micro_window *w = (const micro_window *)window;
    gather_run runs[PIXELS];
    int found = gather_runs(w, first, count, runs), within = count == PIXELS;
    int area = w->kernel_height * w->kernel_width, plane = w->height * w->width;
#ifdef GATHERED
    if (within && GATHERED(w, map + (ptrdiff_t)channel * plane, panel, first, channels))
        return 0;
#endif
    for (int r = 0; r < found; r++)
        within &= gather_within(w, &runs[r]);
    if (!within)
        memset(panel, 0, sizeof *panel * (size_t)(channels * area * PIXELS));
    for (int r = 0; r < found; r++)
        for (int i = 0; i < w->kernel_height; i++) {
            int y = runs[r].y + i * w->dilation_y;
            if (y < 0 || y >= w->height)
                continue;
            float_taps t = {
                .from = map + (ptrdiff_t)channel * plane + (ptrdiff_t)y * w->width,
                .to = panel + i * w->kernel_width * PIXELS + runs[r].at,
                .plane = plane,
                .step = area * PIXELS,
                .channels = channels,
                .stride = w->stride_x,
            };
            float_row(w, &runs[r], t, channel + channels == w->channels && y + 1 == w->height);
        }
    return 0;
}

#endif
