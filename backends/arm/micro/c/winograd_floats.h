/* Winograd's convolution for floats: tiles of 4x4 outputs, filters of 3x3 or 4x4 taps.
 *
 * A kernel's file defines before it includes this file: WINOGRAD(what), the names of its functions,
 * and multiply_4, _8 and _12, which add products as in float_matrix.h, with FILTERS of
 * winograd_tiles.h. It can define ADD_POINT instead, which does the same as add_point. If it has a
 * faster transform for 3x3 taps with stride 1, THREE_TAPS does that for one channel.
 *
 * A filter with stride 2 is four filters with stride 1, one per phase of rows and columns: tap s *
 * i + u of a filter is tap i of its phase u, which reads every s-th pixel. With r taps per side
 * there are n = r + 3 points, and n * n products replace 16 * r * r for the 16 outputs of a tile
 * and channel. Phases of 3x3 taps with stride 2 are not summed, but have separate points: 81
 * products replace 144.
 */
#include "float_rows.h"
#include "winograd_tiles.h"

enum {
    AT_ONCE = 32 * 49, /* points of phases of channels with weights transformed at once */
    MAX_PHASES = 2, /* of rows, and of columns */
};

/* Flags for results. */
enum {
    LOWER_BOUND = 2, /* clamp to at least bounds[0] */
    UPPER_BOUND = 4,  /* clamp to at most bounds[1] */
};

typedef float32x4_t four, vector;

enum { LANES = 4 };

static inline four load(const float *from) { return vld1q_f32(from); }

static inline void store(float *to, four x) { vst1q_f32(to, x); }

static inline four broadcast(float x) { return vdupq_n_f32(x); }

static inline four times(four a, float c) { return vmulq_n_f32(a, c); }

/* a + b * c, in one instruction: compilers make two of vmlaq_n_f32. */
static inline four plus(four a, four b, float c) { return vfmaq_f32(a, b, vdupq_n_f32(c)); }

#include "winograd_points.h"

/* ---- input of tiles */

/* Return the points per side. */
static inline int count_points(const micro_window *w)
{
    return count_taps(w) == 2 ? STRIDE2_POINTS : count_taps(w) + SIDE - 1;
}

/* Return the phases of rows, or of columns, that are summed. */
static inline int count_summed_phases(const micro_window *w)
{
    return count_taps(w) == 2 ? 1 : w->stride_x;
}

/* Transform a row or a column of four tiles, of `points` pixels. */
ALWAYS_INLINE void points_of_side(const four *d, four *t, int points)
{
    if (points == STRIDE2_POINTS)
        points_of_split_pixels(d, t);
    else
        points_of_pixels(d, t, points);
}

/* Transform four tiles of a row; results of points are `step` floats apart. If phases are not
 * summed, `odd` has the columns between those of `rows`. */
ALWAYS_INLINE void transform_pixels(float (*rows)[COLUMNS], float (*odd)[COLUMNS], float *to,
                                    ptrdiff_t step, int points)
{
    four between[STRIDE2_POINTS][STRIDE2_POINTS];
    for (int i = 0; i < points; i++) {
        float32x4x4_t a = vld4q_f32(rows[i]), b = vld4q_f32(rows[i] + SIDE);
        if (points == STRIDE2_POINTS) {
            float32x4x4_t c = vld4q_f32(odd[i]);
            four d[] = {a.val[0], c.val[0], a.val[1], c.val[1], a.val[2],
                        c.val[2], a.val[3], c.val[3], b.val[0]};
            points_of_side(d, between[i], points);
        } else {
            four d[] = {a.val[0], a.val[1], a.val[2], a.val[3], b.val[0], b.val[1], b.val[2]};
            points_of_side(d, between[i], points);
        }
    }
    for (int j = 0; j < points; j++) {
        four d[STRIDE2_POINTS], t[STRIDE2_POINTS];
        UNROLL
        for (int i = 0; i < points; i++)
            d[i] = between[i][j];
        points_of_side(d, t, points);
        UNROLL
        for (int i = 0; i < points; i++)
            vst1q_f32(to + (i * points + j) * step, t[i]);
    }
}

/* Load the input of a run for the rows of phase `u`: one phase of columns after another. */
static void read_rows(const micro_window *w, const float *plane, const tile_run *run, int u,
                      float (*rows)[STRIDE2_POINTS][COLUMNS])
{
    int stride = w->stride_x, points = count_points(w), step = count_summed_phases(w);
    int left = run->x * stride - w->left;
    int columns = (run->count + 3) / 4 * 16 + 4;
    for (int i = 0; i < points; i++) {
        int y = run->y * stride + i * step + u - w->top;
        const float *row = plane + (ptrdiff_t)y * w->width;
        if (y < 0 || y >= w->height)
            for (int v = 0; v < stride; v++)
                fill_zeros(rows[v][i], 0, COLUMNS);
        else if (stride == 1)
            copy_row(row, w->width, left, columns, rows[0][i]);
        else
            split_row(row, w->width, left, columns, rows[0][i], rows[1][i]);
    }
}

/* Write the points of one channel of `tiles` tiles from `first` on: `pitch` floats per point and
 * phase of a channel, at least three more than tiles. */
int32_t WINOGRAD(pixels)(const float *map, float *to, const int32_t *window, int first, int tiles,
                         int channel, int pitch)
{
    const micro_window *w = (const micro_window *)window;
    const float *plane = map + (ptrdiff_t)channel * w->height * w->width;
    int side = count_summed_phases(w), points = count_points(w), phases = side * side;
    ptrdiff_t step = (ptrdiff_t)w->channels * phases * pitch;
    float rows[MAX_PHASES][STRIDE2_POINTS][COLUMNS];
    to += (ptrdiff_t)channel * phases * pitch;
    for (int at = 0; at < tiles;) {
        tile_run run = find_float_run(w, first, at, tiles);
        for (int u = 0; u < side; u++) {
            read_rows(w, plane, &run, u, rows);
            for (int v = 0; v < side; v++)
                /* the last four of a row may write too many; the next row overwrites these */
                for (int k = 0; k < run.count; k += 4) {
                    float(*from)[COLUMNS] = (float(*)[COLUMNS])(rows[v][0] + k * SIDE);
                    float(*odd)[COLUMNS] = (float(*)[COLUMNS])(rows[1][0] + k * SIDE);
                    float *tile = to + (u * side + v) * pitch + at + k;
                    if (points == 6)
                        transform_pixels(from, odd, tile, step, 6);
                    else if (points == 7)
                        transform_pixels(from, odd, tile, step, 7);
                    else
                        transform_pixels(from, odd, tile, step, STRIDE2_POINTS);
                }
        }
        at += run.count;
    }
    return 0;
}

/* ---- products */

#ifndef ADD_POINT
#define ADD_POINT add_point

/* Some vectors of tiles of one point; `vectors` is a constant of each call. */
ALWAYS_INLINE void add_products(const float *pixels, int pitch, const float *weights, int channels,
                                int begins, float *to, int plane, int vectors)
{
    four sums[FILTERS][3];
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            sums[i][v] = begins ? vdupq_n_f32(0) : vld1q_f32(to + i * plane + 4 * v);
    switch (vectors) {
    case 1:
        multiply_4(pixels, pitch, weights, channels, sums);
        break;
    case 2:
        multiply_8(pixels, pitch, weights, channels, sums);
        break;
    default:
        multiply_12(pixels, pitch, weights, channels, sums);
    }
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            vst1q_f32(to + i * plane + 4 * v, sums[i][v]);
}

static void add_point(const float *pixels, int pitch, const float *weights, int channels,
                      int begins, float *to, int plane, int tiles)
{
    for (; tiles > 8; tiles -= 12, pixels += 12, to += 12)
        add_products(pixels, pitch, weights, channels, begins, to, plane, 3);
    if (tiles > 4)
        add_products(pixels, pitch, weights, channels, begins, to, plane, 2);
    else if (tiles > 0)
        add_products(pixels, pitch, weights, channels, begins, to, plane, 1);
}

#endif

/* ---- results */

typedef struct {
    const micro_window *window;
    const float *bounds;
    int flags;
} winograd_result;

/* Write four tiles of a row, without columns outside of the output. */
ALWAYS_INLINE void write_tiles(const winograd_result *r, const float *sums, ptrdiff_t step,
                               float bias, float *plane, int y, int x, int columns, int points)
{
    four between[STRIDE2_POINTS][SIDE];
    for (int j = 0; j < points; j++) {
        four m[STRIDE2_POINTS];
        UNROLL
        for (int i = 0; i < points; i++)
            m[i] = vld1q_f32(sums + (i * points + j) * step);
        outputs_of_points(m, between[j], points);
    }
    int rows = micro_min(SIDE, r->window->out_height - y);
    float *to = plane + (ptrdiff_t)y * r->window->out_width + x;
    for (int i = 0; i < rows; i++, to += r->window->out_width) {
        four m[STRIDE2_POINTS];
        float32x4x4_t outputs;
        UNROLL
        for (int j = 0; j < points; j++)
            m[j] = between[j][i];
        outputs_of_points(m, outputs.val, points);
        UNROLL
        for (int k = 0; k < SIDE; k++) {
            outputs.val[k] = vaddq_f32(outputs.val[k], vdupq_n_f32(bias));
            if (r->flags & LOWER_BOUND)
                outputs.val[k] = vmaxq_f32(outputs.val[k], vdupq_n_f32(r->bounds[0]));
            if (r->flags & UPPER_BOUND)
                outputs.val[k] = vminq_f32(outputs.val[k], vdupq_n_f32(r->bounds[1]));
        }
        if (columns == 4 * SIDE) {
            vst4q_f32(to, outputs);
        } else {
            float tail[4 * SIDE];
            vst4q_f32(tail, outputs);
            memcpy(to, tail, sizeof *to * (size_t)columns);
        }
    }
}

/* Separate functions: with all of them in one function, a compiler spills registers. */
#define WRITE_TILES(points) \
    static __attribute__((noinline)) void write_tiles_##points( \
        const winograd_result *r, const float *sums, ptrdiff_t step, float bias, float *plane, \
        int y, int x, int columns) \
    { \
        write_tiles(r, sums, step, bias, plane, y, x, columns, points); \
    }
WRITE_TILES(6)
WRITE_TILES(7)
WRITE_TILES(9)

/* Transform the weights of some phases of channels of a block; points are `step` floats apart. */
static void transform_block(const micro_window *w, const float *weights, int first, int count,
                            float *to, ptrdiff_t step)
{
#ifdef THREE_TAPS
    if (w->stride_x == 1 && w->kernel_height == 3 && w->kernel_width == 3) {
        weights += (ptrdiff_t)first * 9 * FILTERS;
        for (int k = 0; k < count; k++, weights += 9 * FILTERS, to += FILTERS)
            THREE_TAPS(weights, to, step);
        return;
    }
#endif
    if (count_taps(w) == 2) {
        weights += (ptrdiff_t)first * 9 * FILTERS;
        for (int k = 0; k < count; k++, weights += 9 * FILTERS, to += FILTERS)
            for (int f = 0; f < FILTERS; f += LANES)
                transform_split_taps(weights + f, to + f, step);
        return;
    }
    transform_weights(w, weights, first, count, to, step);
}

/* Compute `tiles` tiles from `first` on for a block of filters, from the output of `pixels`. The
 * result has `filters` of these filters. Weights: for each channel and tap, one per filter. */
int32_t WINOGRAD(block)(const float *pixels, const float *weights, const float *bias,
                        const float *bounds, float *y, const int32_t *window, int first, int tiles,
                        int pitch, int filters, int flags)
{
    const micro_window *w = (const micro_window *)window;
    winograd_result result = {w, bounds, flags};
    int points = count_points(w);
    int phases = w->channels * count_summed_phases(w) * count_summed_phases(w);
    int weighted_points = points == STRIDE2_POINTS ? STRIDE2_WEIGHTS : points;
    float sums[MAX_POINTS * MAX_POINTS * FILTERS * (TILES + 4)];
    float transformed[AT_ONCE * FILTERS];
    int plane = (tiles + 3) / 4 * 4 + 4, fit = AT_ONCE / (weighted_points * weighted_points);
    int rounds = (phases + fit - 1) / fit, channels_per_round = (phases + rounds - 1) / rounds;
    for (int channel = 0; channel < phases; channel += channels_per_round) {
        int count = micro_min(channels_per_round, phases - channel);
        transform_block(w, weights, channel, count, transformed, count * FILTERS);
        const float *from = pixels + (ptrdiff_t)channel * pitch;
        float *to = sums;
        for (int i = 0; i < points; i++)
            for (int j = 0; j < points;
                 j++, from += (ptrdiff_t)phases * pitch, to += FILTERS * plane) {
                int n = micro_min(i, weighted_points - 1) * weighted_points +
                        micro_min(j, weighted_points - 1);
                ADD_POINT(from, pitch, transformed + n * count * FILTERS, count, channel == 0, to,
                          plane, tiles);
            }
    }
    for (int f = 0; f < filters; f++, y += (ptrdiff_t)w->out_height * w->out_width)
        for (int at = 0; at < tiles;) {
            tile_run run = find_float_run(w, first, at, tiles);
            for (int k = 0; k < run.count; k += 4) {
                const float *from = sums + f * plane + at + k;
                int x = run.x + k * SIDE, end = micro_min(run.x + run.count * SIDE, w->out_width);
                int columns = micro_min(4 * SIDE, end - x);
                if (points == 6)
                    write_tiles_6(&result, from, FILTERS * plane, bias[f], y, run.y, x, columns);
                else if (points == 7)
                    write_tiles_7(&result, from, FILTERS * plane, bias[f], y, run.y, x, columns);
                else
                    write_tiles_9(&result, from, FILTERS * plane, bias[f], y, run.y, x, columns);
            }
            at += run.count;
        }
    return 0;
}
