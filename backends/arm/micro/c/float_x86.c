/* Matrix products of floats for x86-64: eight filters by up to 32 pixels.
 *
 * Panels, weights and biases are as in float_matrix.h, but for the numbers of pixels and filters.
 */
#include "float_x86.h"
#include "gather.h"

#define FLOATS(what) micro_float_x86_##what

enum {
    PIXELS = 32,
    FILTERS = 8,
    WIDE = 2, /* vectors of pixels, and filters, whose sums are in registers */
    HIGH = LANES == 16 ? 8 : 4,
};

/* What becomes of sums. */
enum {
    ADDS = 1,  /* they begin with what is in the result, not with the bias */
    LEAST = 2, /* they are at least bounds[0] */
    MOST = 4,  /* they are at most bounds[1] */
};

/* Write what a row of the window reads for a run, from where the map's row begins. */
static inline void gather_row(const micro_window *w, const gather_run *run, const float *row,
                              float *panel)
{
    for (int j = 0; j < w->kernel_width; j++, panel += PIXELS) {
        int x = run->x + j * w->dilation_x, step = w->stride_x, first = 0, last = run->count;
        if (!run->inside) {
            first = x < 0 ? (-x + step - 1) / step : 0;
            last = x < w->width ? micro_least(last, (w->width - 1 - x) / step + 1) : 0;
        }
        if (last > first)
            copy_every(panel + first, row + (x + first * step), last - first, step);
    }
}

/* Whether all that a run reads lies in the map. */
static int within(const micro_window *w, const gather_run *run)
{
    int below = run->y + (w->kernel_height - 1) * w->dilation_y;
    return run->inside && run->y >= 0 && below < w->height;
}

/* Write what `count` pixels of the output from `first` on read of some channels. */
int32_t FLOATS(gather)(const float *map, float *panel, const int32_t *window, int first, int count,
                       int channel, int channels)
{
    const micro_window *w = (const micro_window *)window;
    gather_run runs[PIXELS];
    int found = gather_runs(w, first, count, runs), whole = count == PIXELS;
    int area = w->kernel_height * w->kernel_width, plane = w->height * w->width;
    for (int r = 0; r < found; r++)
        whole &= within(w, &runs[r]);
    if (!whole)
        memset(panel, 0, sizeof *panel * (size_t)(channels * area * PIXELS));
    map += (ptrdiff_t)channel * plane;
    for (; channels; channels--, map += plane, panel += area * PIXELS)
        for (int r = 0; r < found; r++)
            for (int i = 0; i < w->kernel_height; i++) {
                int y = runs[r].y + i * w->dilation_y;
                if (y >= 0 && y < w->height)
                    gather_row(w, &runs[r], map + (ptrdiff_t)y * w->width,
                               panel + i * w->kernel_width * PIXELS + runs[r].at);
            }
    return 0;
}

typedef struct {
    const float *panel, *weights, *bias, *bounds;
    int pitch, taps, how;
} float_block;

/* Filters `f` to `f` + HIGH for pixels `p` to `p` + wide * LANES; `wide` is a constant of each call. */
ALWAYS_INLINE void float_tile(const float_block *b, float *y, ptrdiff_t plane, int f, int p, int wide)
{
    vector sums[HIGH][WIDE];
    const float *panel = b->panel + p, *weights = b->weights + f;
    y += f * plane + p;
    UNROLL
    for (int i = 0; i < HIGH; i++)
        UNROLL
        for (int v = 0; v < wide; v++)
            sums[i][v] = b->how & ADDS ? load(y + i * plane + v * LANES) : repeated(b->bias[f + i]);
    for (int k = 0; k < b->taps; k++, panel += b->pitch, weights += FILTERS) {
        vector x[WIDE];
        UNROLL
        for (int v = 0; v < wide; v++)
            x[v] = load(panel + v * LANES);
        UNROLL
        for (int i = 0; i < HIGH; i++) {
            vector weight = repeated(weights[i]);
            UNROLL
            for (int v = 0; v < wide; v++)
                sums[i][v] = added(sums[i][v], x[v], weight);
        }
    }
    UNROLL
    for (int i = 0; i < HIGH; i++)
        UNROLL
        for (int v = 0; v < wide; v++) {
            vector x = sums[i][v];
            if (b->how & LEAST)
                x = at_least(x, repeated(b->bounds[0]));
            if (b->how & MOST)
                x = at_most(x, repeated(b->bounds[1]));
            store(y + i * plane + v * LANES, x);
        }
}

/* A whole block of filters, for pixels that are whole vectors. */
static inline void float_sums(const float_block *b, float *y, ptrdiff_t plane, int count)
{
    int p = 0;
    for (; p + WIDE * LANES <= count; p += WIDE * LANES)
        for (int f = 0; f < FILTERS; f += HIGH)
            float_tile(b, y, plane, f, p, WIDE);
    for (; p < count; p += LANES)
        for (int f = 0; f < FILTERS; f += HIGH)
            float_tile(b, y, plane, f, p, 1);
}

/* A block that is cut off at the last filter or pixel. */
static void float_rest(const float_block *b, float *y, ptrdiff_t plane, int filters, int count)
{
    float block[FILTERS][PIXELS];
    int vectors = (count + LANES - 1) / LANES * LANES;
    if (b->how & ADDS)
        for (int i = 0; i < FILTERS; i++) {
            fill_zeros(block[i], vectors);
            if (i < filters)
                copy_floats(block[i], y + i * plane, count);
        }
    float_sums(b, block[0], PIXELS, vectors);
    for (int i = 0; i < filters; i++)
        copy_floats(y + i * plane, block[i], count);
}

/* Sum some taps of `filters` filters for the first `count` pixels of a panel, whose taps are `pitch`
 * numbers apart. A filter's plane is `plane` numbers behind the one before it, a block's weights
 * `block` numbers. */
int32_t FLOATS(sums)(const float *panel, int pitch, const float *weights, const float *bias,
                     const float *bounds, float *y, int taps, int block, int filters, int plane,
                     int count, int how)
{
    float_block b = {panel, weights, bias, bounds, pitch, taps, how};
    for (int f = 0; f < filters; f += FILTERS, b.weights += block, b.bias += FILTERS) {
        int rest = micro_least(FILTERS, filters - f);
        float *to = y + (ptrdiff_t)f * plane;
        if (rest == FILTERS && count == PIXELS)
            float_sums(&b, to, plane, PIXELS);
        else
            float_rest(&b, to, plane, rest, count);
    }
    return 0;
}
