/* The transforms of Winograd's method on vectors of floats: 4x4 outputs, filters of 3x3 or 4x4
 * taps.
 *
 * A file defines before it includes this file: the type `vector` of LANES floats, which are
 * transformed in parallel; load, store and broadcast; plus(a, b, c), which is a + b * c, and
 * times(a, c), where c is a scalar. With r taps per side there are n = r + 3 points: 0, 1, -1, 2,
 * -2, for n = 7 also 1/2, and infinity; Lavin and Gray, arXiv 1509.09308. 3x3 taps with stride 2
 * have 9 per side: 0, 1, -1, 2 and infinity for the two taps of the first phase, and the products
 * of the second phase's tap, which are outputs.
 */
#ifndef WINOGRAD_POINTS_H
#define WINOGRAD_POINTS_H

#include "winograd_tiles.h"

enum {
    MAX_TAPS = 4,
    MAX_POINTS = 7,
    STRIDE2_POINTS = 9,
    STRIDE2_WEIGHTS = 6, /* of them with separate weights: the second phase has one */
};

static inline int count_taps(const micro_window *w)
{
    return (w->kernel_width + w->stride_x - 1) / w->stride_x;
}

static inline void points_of_pixels(const vector *d, vector *t, int points)
{
    if (points == 6) {
        vector even = plus(d[4], d[2], -4), odd = plus(d[3], d[1], -4);
        vector d42 = times(d[4] - d[2], 1 / 24.f), d31 = d[3] - d[1];
        t[0] = plus(plus(d[0], d[2], -1.25f), d[4], .25f);
        t[1] = times(even + odd, -1 / 6.f);
        t[2] = times(even - odd, -1 / 6.f);
        t[3] = plus(d42, d31, 1 / 12.f);
        t[4] = plus(d42, d31, -1 / 12.f);
        t[5] = plus(plus(d[5], d[3], -5), d[1], 4);
    } else {
        vector p0 = plus(plus(d[4], d[2], -5), d[0], 4), p1 = plus(plus(d[5], d[3], -5), d[1], 4);
        vector p2 = plus(plus(d[6], d[4], -5), d[2], 4);
        vector u0 = plus(d[3], d[1], -4), u1 = plus(d[4], d[2], -4), u2 = plus(d[5], d[3], -4);
        vector v0 = d[3] - d[1], v1 = d[4] - d[2], v2 = d[5] - d[3];
        t[0] = plus(p1, p0, -.5f);
        t[1] = plus(plus(u2, u1, .5f), u0, -.5f);
        t[2] = plus(plus(u2, u1, -1.5f), u0, .5f);
        t[3] = plus(v2 - v0, v1, 1.5f);
        t[4] = plus(v2 + v0, v1, -2.5f);
        t[5] = p1;
        t[6] = plus(p2, p1, -.5f);
    }
}

static inline void points_of_split_pixels(const vector *d, vector *t)
{
    vector odd = d[6] - d[2], less = d[4] - d[2];
    t[0] = plus(d[0] - d[4], odd, .5f);
    t[1] = times(d[2] + d[4] - odd, .5f);
    t[3] = times(odd, 1 / 6.f);
    t[2] = plus(t[3], less, -.5f);
    t[4] = plus(d[8] - d[4], odd, -2);
    UNROLL
    for (int i = 0; i < SIDE; i++)
        t[5 + i] = d[2 * i + 1];
}

static inline void points_of_split_taps(const vector *g, vector *t)
{
    t[0] = g[0];
    t[1] = g[0] + g[2];
    t[2] = g[2] - g[0];
    t[3] = t[1] + g[2];
    t[4] = g[2];
    t[5] = g[1];
}

static inline void points_of_taps(const vector *g, vector *t, int points)
{
    if (points == 6) {
        /* The pixels' transform has the factors: where it is expensive, filters outnumber tiles. */
        vector ends = g[0] + g[2], wide = plus(g[0], g[2], 4);
        t[0] = g[0];
        t[1] = ends + g[1];
        t[2] = ends - g[1];
        t[3] = plus(wide, g[1], 2);
        t[4] = plus(wide, g[1], -2);
        t[5] = g[2];
    } else {
        vector even = g[0] + g[2], odd = g[1] + g[3];
        vector wide = plus(g[0], g[2], 4), far = plus(g[1], g[3], 4);
        t[0] = times(g[0], -.5f);
        t[1] = times(even + odd, -1 / 3.f);
        t[2] = times(even - odd, 1 / 9.f);
        t[3] = times(plus(wide, far, 2), 1 / 36.f);
        t[4] = times(plus(wide, far, -2), -1 / 60.f);
        t[5] = times(plus(plus(plus(g[0], g[1], .5f), g[2], .25f), g[3], .125f), 32 / 45.f);
        t[6] = g[3];
    }
}

/* Transform a phase's taps of LANES filters, zero outside of the filter; `stride` and `points` are
 * constants of each call. */
ALWAYS_INLINE void transform_taps(const micro_window *w, const float *weights, int phase, float *to,
                                  ptrdiff_t step, int stride, int points)
{
    int u = phase / stride, v = phase % stride, taps = points - SIDE + 1;
    int width = stride == 1 ? taps : w->kernel_width;
    vector between[MAX_TAPS][MAX_POINTS];
    UNROLL
    for (int i = 0; i < taps; i++) {
        vector g[MAX_TAPS];
        UNROLL
        for (int j = 0; j < taps; j++) {
            int y = i * stride + u, x = j * stride + v;
            int is_inside = stride == 1 || (y < w->kernel_height && x < width);
            g[j] = is_inside ? load(weights + (y * width + x) * FILTERS) : broadcast(0);
        }
        points_of_taps(g, between[i], points);
    }
    UNROLL
    for (int j = 0; j < points; j++) {
        vector g[MAX_TAPS], t[MAX_POINTS];
        UNROLL
        for (int i = 0; i < taps; i++)
            g[i] = between[i][j];
        points_of_taps(g, t, points);
        UNROLL
        for (int i = 0; i < points; i++)
            store(to + (i * points + j) * step, t[i]);
    }
}

/* Transform 3x3 taps with stride 2. */
static inline void transform_split_taps(const float *weights, float *to, ptrdiff_t step)
{
    vector between[3][STRIDE2_WEIGHTS];
    UNROLL
    for (int i = 0; i < 3; i++, weights += 3 * FILTERS) {
        vector g[] = {load(weights), load(weights + FILTERS), load(weights + 2 * FILTERS)};
        points_of_split_taps(g, between[i]);
    }
    UNROLL
    for (int j = 0; j < STRIDE2_WEIGHTS; j++) {
        vector g[] = {between[0][j], between[1][j], between[2][j]}, t[STRIDE2_WEIGHTS];
        points_of_split_taps(g, t);
        UNROLL
        for (int i = 0; i < STRIDE2_WEIGHTS; i++)
            store(to + (i * STRIDE2_WEIGHTS + j) * step, t[i]);
    }
}

/* Transform the weights of some phases of channels of a block: FILTERS floats per phase and point,
 * with points `step` floats apart. */
static void transform_weights(const micro_window *w, const float *weights, int first, int count,
                              float *to, ptrdiff_t step)
{
    int stride = w->stride_x, phases = stride * stride, points = count_taps(w) + SIDE - 1;
    int taps = w->kernel_height * w->kernel_width;
    for (int k = 0; k < count; k++, to += FILTERS)
        for (int f = 0; f < FILTERS; f += LANES) {
            int phase = (first + k) % phases;
            const float *from = weights + (ptrdiff_t)((first + k) / phases) * taps * FILTERS + f;
            if (stride == 1 && points == 6)
                transform_taps(w, from, phase, to + f, step, 1, 6);
            else if (points == 6)
                transform_taps(w, from, phase, to + f, step, stride, 6);
            else
                transform_taps(w, from, phase, to + f, step, stride, 7);
        }
}

static inline void outputs_of_points(const vector *m, vector *y, int points)
{
    vector even = m[1] + m[2], odd = m[1] - m[2];
    if (points == STRIDE2_POINTS) {
        y[0] = m[0] + even + m[3] + m[5];
        y[1] = plus(odd + m[6], m[3], 2);
        y[2] = plus(even + m[7], m[3], 4);
        y[3] = plus(odd + m[4] + m[8], m[3], 8);
        return;
    }
    vector wide = m[3] + m[4], far = m[3] - m[4];
    y[0] = m[0] + even + wide;
    y[1] = plus(odd, far, 2);
    y[2] = plus(even, wide, 4);
    y[3] = plus(odd + m[points - 1], far, 8);
    if (points == 7) {
        y[0] = y[0] + m[5];
        y[1] = plus(y[1], m[5], .5f);
        y[2] = plus(y[2], m[5], .25f);
        y[3] = plus(y[3], m[5], .125f);
    }
}

#endif
