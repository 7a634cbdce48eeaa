/* Matrix products of floats for x86-64: eight filters by up to 48 pixels.
 *
 * Panels, weights and biases are as in float_matrix.h, except for the numbers of pixels and
 * filters.
 */
#include "float_x86.h"
#include "gather.h"

#define FLOATS(what) micro_float_x86_##what

enum {
    PIXELS = 48,
    FILTERS = 8,
    MAX_PIECES = 341,         /* largest number of taps with a panel: `MAX_PANEL_FLOATS` */
    WIDE = LANES == 4 ? 2 : 3, /* vectors of pixels, and filters, with sums in registers */
    HIGH = LANES == 16 ? 8 : 4,
};

/* The input of a tap for some pixels of one channel, or of a tap and the one after it. */
typedef struct {
    int from, to, count, is_pair;
} float_piece;

/* Find the input of one row of the window for a run, from column 0 of the map's row on. */
static int find_row_pieces(const micro_window *w, const gather_run *run, int from, int to,
                           float_piece *pieces)
{
    int piece_count = 0, step = w->stride_x;
    for (int j = 0; j < w->kernel_width; j++) {
        int x = run->x + j * w->dilation_x, first = 0, end = run->count, is_pair = 0;
        if (!run->is_inside) {
            first = x < 0 ? (-x + step - 1) / step : 0;
            end = x < w->width ? micro_min(end, (w->width - 1 - x) / step + 1) : 0;
        } else {
            is_pair = step == 2 && w->dilation_x == 1 && j + 1 < w->kernel_width;
        }
        if (end > first)
            pieces[piece_count++] = (float_piece){from + x + first * step, to + j * PIXELS + first,
                                                  end - first, is_pair};
        j += is_pair;
    }
    return piece_count;
}

static inline void copy_piece(const float_piece *p, const float *map, float *panel, int stride)
{
    map += p->from;
    panel += p->to;
    if (p->is_pair) {
        split_pairs(panel, panel + PIXELS, map, p->count);
    } else if (stride == 1 && p->count == PIXELS) {
        UNROLL
        for (int u = 0; u < PIXELS; u += LANES)
            store(panel + u, load(map + u));
    } else {
        copy_strided(panel, map, p->count, stride);
    }
}

/* Write the input of `count` pixels of the output, from `first` on, for some channels. */
int32_t FLOATS(gather)(const float *map, float *panel, const int32_t *window, int first, int count,
                       int channel, int channels)
{
    const micro_window *w = (const micro_window *)window;
    gather_run runs[PIXELS];
    int run_count = find_runs(w, first, count, runs), is_full = count == PIXELS;
    int area = w->kernel_height * w->kernel_width, plane = w->height * w->width;
    for (int r = 0; r < run_count; r++)
        is_full &= is_run_inside(w, &runs[r]);
    if (!is_full)
        memset(panel, 0, sizeof *panel * (size_t)(channels * area * PIXELS));
    for (int r = 0; r < run_count; r++) {
        float_piece pieces[MAX_PIECES];
        int count = 0;
        for (int i = 0; i < w->kernel_height; i++) {
            int y = runs[r].y + i * w->dilation_y;
            if (y >= 0 && y < w->height)
                count += find_row_pieces(w, &runs[r], y * w->width,
                                         i * w->kernel_width * PIXELS + runs[r].at, pieces + count);
        }
        const float *from = map + (ptrdiff_t)channel * plane;
        float *to = panel;
        for (int c = 0; c < channels; c++, from += plane, to += area * PIXELS)
            for (int k = 0; k < count; k++)
                copy_piece(&pieces[k], from, to, w->stride_x);
    }
    return 0;
}

typedef struct {
    const float *panel, *weights, *bias, *bounds;
    int pitch, taps, flags;
} float_block;

/* `high` filters from `f` on for `wide` vectors of pixels from `p` on; both are constants of each
   call. */
ALWAYS_INLINE void sum_tile(const float_block *b, float *y, ptrdiff_t plane, int f, int p,
                            int high, int wide)
{
    vector sums[FILTERS][WIDE];
    const float *panel = b->panel + p, *weights = b->weights + f;
    y += f * plane + p;
    UNROLL
    for (int i = 0; i < high; i++)
        UNROLL
        for (int v = 0; v < wide; v++)
            sums[i][v] = b->flags & ADDS ? load(y + i * plane + v * LANES)
                                         : broadcast(b->bias[f + i]);
    for (int k = 0; k < b->taps; k++, panel += b->pitch, weights += FILTERS) {
        vector x[WIDE];
        UNROLL
        for (int v = 0; v < wide; v++)
            x[v] = load(panel + v * LANES);
        UNROLL
        for (int i = 0; i < high; i++) {
            vector weight = broadcast(weights[i]);
            UNROLL
            for (int v = 0; v < wide; v++)
                sums[i][v] = add_product(sums[i][v], x[v], weight);
            STAYS(sums[i], wide);
        }
    }
    UNROLL
    for (int i = 0; i < high; i++)
        UNROLL
        for (int v = 0; v < wide; v++) {
            store(y + i * plane + v * LANES, apply_bounds(sums[i][v], b->bounds, b->flags));
        }
}

/* A full block of filters, for full vectors of pixels. */
static inline void sum_block(const float_block *b, float *y, ptrdiff_t plane, int count)
{
    int p = 0;
    for (; p + WIDE * LANES <= count; p += WIDE * LANES)
        for (int f = 0; f < FILTERS; f += HIGH)
            sum_tile(b, y, plane, f, p, HIGH, WIDE);
    for (; p + 2 * LANES <= count; p += 2 * LANES)
        for (int f = 0; f < FILTERS; f += HIGH)
            sum_tile(b, y, plane, f, p, HIGH, 2);
    for (; p < count; p += LANES)
        sum_tile(b, y, plane, 0, p, FILTERS, 1);
}

/* A partial block, at the last filter or pixel. */
static void sum_partial_block(const float_block *b, float *y, ptrdiff_t plane, int filters,
                              int count)
{
    float block[FILTERS][PIXELS];
    int vectors = (count + LANES - 1) / LANES * LANES;
    if (b->flags & ADDS)
        for (int i = 0; i < FILTERS; i++) {
            fill_zeros(block[i], vectors);
            if (i < filters)
                copy_floats(block[i], y + i * plane, count);
        }
    sum_block(b, block[0], PIXELS, vectors);
    for (int i = 0; i < filters; i++)
        copy_floats(y + i * plane, block[i], count);
}

/* Sum some taps of `filters` filters for the first `count` pixels of a panel. Taps of the panel are
 * `pitch` floats apart, planes of filters `plane` floats, weights of blocks `block` floats. */
int32_t FLOATS(sums)(const float *panel, int pitch, const float *weights, const float *bias,
                     const float *bounds, float *y, int taps, int block, int filters, int plane,
                     int count, int flags)
{
    float_block b = {panel, weights, bias, bounds, pitch, taps, flags};
    for (int f = 0; f < filters; f += FILTERS, b.weights += block, b.bias += FILTERS) {
        int block_filters = micro_min(FILTERS, filters - f);
        float *to = y + (ptrdiff_t)f * plane;
        if (block_filters == FILTERS && count == PIXELS)
            sum_block(&b, to, plane, PIXELS);
        else
            sum_partial_block(&b, to, plane, block_filters, count);
    }
    return 0;
}
