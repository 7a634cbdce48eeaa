/* Winograd's convolution for floats, on x86-64: tiles of 4x4 outputs, filters of 3x3 or 4x4 taps,
 * with stride 2 as phases (winograd_floats.h).
 *
 * Vectors of points of pixels are along channels, vectors of weights and sums along filters, so
 * that maps with few tiles also fill them. All variants write the same: for each point and tile,
 * the phases of channels, padded to full GROUPs.
 */
#include "float_x86.h"
#define FILTERS 16
#include "winograd_tiles.h"

#define WINOGRAD(what) micro_winograd_x86_##what

static inline vector times(vector a, float c) { return a * broadcast(c); }

static inline vector plus(vector a, vector b, float c) { return add_product(a, b, broadcast(c)); }

#include "winograd_points.h"

enum {
    LINE = 16,  /* floats per cache line */
    GROUP = 16, /* phases of channels per call that writes points */
    WIDE = FILTERS / LANES,
    TOGETHER = LANES == 16 ? 12 : LANES == 8 ? 6 : 2, /* tiles with sums in registers */
    AREA = 36,
    SUMS = AREA * (TILES + 1) * FILTERS,  /* floats of a band's sums */
    TRANSFORMED = AREA * 33 * FILTERS,    /* floats of weights transformed at once */
};

static inline int count_phases(const micro_window *w)
{
    return w->channels * w->stride_x * w->stride_x;
}

/* Return the distance between the phases of two tiles. */
static inline ptrdiff_t compute_tile_size(const micro_window *w)
{
    return (count_phases(w) + GROUP - 1) / GROUP * GROUP;
}

/* Return the distance between the floats of two points, for `lines` cache lines: an odd number of
 * lines, because distances of a power of two map to few cache sets. */
static inline ptrdiff_t compute_point_distance(ptrdiff_t lines) { return (lines | 1) * LINE; }

/* ---- input of tiles */

/* Write `columns` floats of a phase's row `row`, from its column `x` on. */
static inline void read_row(const micro_window *w, const float *map, int phase, int row, int x,
                            int columns, float *to)
{
    int stride = w->stride_x, channel = phase / (stride * stride);
    int y = row * stride + phase / stride % stride - w->top;
    if (phase >= count_phases(w) || y < 0 || y >= w->height) {
        fill_zeros(to, columns);
        return;
    }
    map += ((ptrdiff_t)channel * w->height + y) * w->width;
    read_columns(map, w->width, x * stride + phase % stride - w->left, stride, columns, to);
}

/* Write the points of LANES phases from `phase` on, for the tiles of a run. */
ALWAYS_INLINE void transform_run(const micro_window *w, const float *map, int phase,
                                 const tile_run *run, float *to, ptrdiff_t step, int points)
{
    float rows[LANES][COLUMNS];
    vector band[COLUMNS][MAX_POINTS];
    int columns = (run->count + 1) * SIDE;
    for (int i = 0; i < points; i++) {
        for (int l = 0; l < LANES; l++)
            read_row(w, map, phase + l, run->y + i, run->x, columns, rows[l]);
        for (int x = 0; x < columns; x += 4) {
            vector transposed[4];
            for (int k = 0; k < 4; k++)
                transposed[k] = load_fours(rows[k] + x, 4 * COLUMNS);
            transpose_fours(transposed);
            for (int k = 0; k < 4; k++)
                band[x + k][i] = transposed[k];
        }
    }
    for (int x = 0; x < run->count * SIDE + points - SIDE; x++) {
        vector t[MAX_POINTS];
        points_of_pixels(band[x], t, points);
        UNROLL
        for (int i = 0; i < points; i++)
            band[x][i] = t[i];
    }
    for (int k = 0; k < run->count; k++, to += compute_tile_size(w))
        for (int i = 0; i < points; i++) {
            vector d[MAX_POINTS], t[MAX_POINTS];
            UNROLL
            for (int j = 0; j < points; j++)
                d[j] = band[k * SIDE + j][i];
            points_of_pixels(d, t, points);
            UNROLL
            for (int j = 0; j < points; j++)
                store(to + (i * points + j) * step, t[j]);
        }
}

/* Write the points of a group of phases of `tiles` tiles from `first` on; there is space for
 * `pitch` tiles per point. */
int32_t WINOGRAD(pixels)(const float *map, float *to, const int32_t *window, int first, int tiles,
                         int group, int pitch)
{
    const micro_window *w = (const micro_window *)window;
    ptrdiff_t size = compute_tile_size(w), step = compute_point_distance(pitch * size / LINE);
    for (int phase = group * GROUP; phase < (group + 1) * GROUP; phase += LANES)
        for (int at = 0; at < tiles;) {
            tile_run run = find_float_run(w, first, at, tiles);
            float *tile = to + at * size + phase;
            if (count_taps(w) == 3)
                transform_run(w, map, phase, &run, tile, step, 6);
            else
                transform_run(w, map, phase, &run, tile, step, 7);
            at += run.count;
        }
    return 0;
}

/* ---- products */

/* Sum some phases of `tiles` tiles, a constant of each call; tiles are `size` floats apart. */
ALWAYS_INLINE void add_tiles(const float *pixels, ptrdiff_t size, const float *weights, int phases,
                             int begins, float *to, int tiles)
{
    vector sums[TOGETHER][WIDE];
    UNROLL
    for (int t = 0; t < tiles; t++)
        UNROLL
        for (int v = 0; v < WIDE; v++)
            sums[t][v] = begins ? broadcast(0) : load(to + t * FILTERS + v * LANES);
    for (int k = 0; k < phases; k++, weights += FILTERS) {
        vector x[WIDE];
        UNROLL
        for (int v = 0; v < WIDE; v++)
            x[v] = load(weights + v * LANES);
        UNROLL
        for (int t = 0; t < tiles; t++) {
            vector pixel = broadcast(pixels[t * size + k]);
            UNROLL
            for (int v = 0; v < WIDE; v++)
                sums[t][v] = add_product(sums[t][v], x[v], pixel);
        }
    }
    UNROLL
    for (int t = 0; t < tiles; t++)
        UNROLL
        for (int v = 0; v < WIDE; v++)
            store(to + t * FILTERS + v * LANES, sums[t][v]);
}

static void add_point(const float *pixels, ptrdiff_t size, const float *weights, int phases,
                      int begins, float *to, int tiles)
{
#define MANY(n) \
    for (; TOGETHER >= n && tiles >= n; tiles -= n, pixels += n * size, to += n * FILTERS) \
    add_tiles(pixels, size, weights, phases, begins, to, n)
    MANY(12);
    MANY(6);
    MANY(4);
    MANY(2);
    MANY(1);
#undef MANY
}

/* ---- results */

typedef struct {
    const micro_window *window;
    const float *bias, *bounds;
    int flags, filters;
} winograd_result;

/* Write LANES filters from `f` on, for the tile whose first output is (y, x). */
ALWAYS_INLINE void write_tile(const winograd_result *r, const float *sums, ptrdiff_t step, int f,
                              float *planes, int y, int x, int points)
{
    const micro_window *w = r->window;
    vector between[MAX_POINTS][SIDE], bias = load(r->bias + f);
    for (int j = 0; j < points; j++) {
        vector m[MAX_POINTS];
        UNROLL
        for (int i = 0; i < points; i++)
            m[i] = load(sums + f + (i * points + j) * step);
        outputs_of_points(m, between[j], points);
    }
    int rows = micro_min(SIDE, w->out_height - y), columns = micro_min(SIDE, w->out_width - x);
    ptrdiff_t plane = (ptrdiff_t)w->out_height * w->out_width;
    float *to = planes + f * plane + (ptrdiff_t)y * w->out_width + x;
    for (int i = 0; i < rows; i++, to += w->out_width) {
        vector m[MAX_POINTS], outputs[SIDE];
        UNROLL
        for (int j = 0; j < points; j++)
            m[j] = between[j][i];
        outputs_of_points(m, outputs, points);
        UNROLL
        for (int k = 0; k < SIDE; k++)
            outputs[k] = apply_bounds(outputs[k] + bias, r->bounds, r->flags);
        transpose_fours(outputs);
        if (columns == SIDE && f + LANES <= r->filters) {
            UNROLL
            for (int k = 0; k < SIDE; k++)
                store_fours(to + k * plane, 4 * plane, outputs[k]);
        } else {
            float tail[LANES][SIDE];
            for (int k = 0; k < SIDE; k++)
                store_fours(tail[k], 4 * SIDE, outputs[k]);
            for (int l = 0; l < micro_min(LANES, r->filters - f); l++)
                copy_floats(to + l * plane, tail[l], columns);
        }
    }
}

/* Compute `tiles` tiles from `first` on for a block of filters, from the output of `pixels`. The
 * result has `filters` of these filters. Weights: for each channel and tap, one per filter. */
int32_t WINOGRAD(block)(const float *pixels, const float *weights, const float *bias,
                        const float *bounds, float *y, const int32_t *window, int first, int tiles,
                        int pitch, int filters, int flags)
{
    const micro_window *w = (const micro_window *)window;
    winograd_result result = {w, bias, bounds, flags, filters};
    int points = count_taps(w) + SIDE - 1, area = points * points, phases = count_phases(w);
    int max_phases = (TRANSFORMED / FILTERS / area - 1) | 1;
    ptrdiff_t size = compute_tile_size(w);
    ptrdiff_t pixels_step = compute_point_distance(pitch * size / LINE);
    ptrdiff_t step = compute_point_distance(tiles);
    float sums[SUMS], transformed[TRANSFORMED];
    for (int phase = 0; phase < phases; phase += max_phases) {
        int count = micro_min(max_phases, phases - phase);
        transform_weights(w, weights, phase, count, transformed, compute_point_distance(count));
        for (int p = 0; p < area; p++)
            add_point(pixels + p * pixels_step + phase, size,
                      transformed + p * compute_point_distance(count), count, phase == 0,
                      sums + p * step, tiles);
    }
    for (int at = 0; at < tiles;) {
        tile_run run = find_float_run(w, first, at, tiles);
        for (int k = 0; k < run.count; k++)
            for (int f = 0; f < filters; f += LANES) {
                const float *from = sums + (at + k) * FILTERS;
                if (points == 6)
                    write_tile(&result, from, step, f, y, run.y, run.x + k * SIDE, 6);
                else
                    write_tile(&result, from, step, f, y, run.y, run.x + k * SIDE, 7);
            }
        at += run.count;
    }
    return 0;
}
