/* Depthwise convolutions of floats for x86-64: windows of 3x3 and 5x5, two rows of outputs at once,
 * which share their loads.
 */
#include "float_x86.h"

#define DEPTHWISE(what) micro_float_depthwise_x86_##what

enum {
    BAND = 8192, /* floats in a band: rows of the map with their border */
    L1_BAND = 4096, /* floats in a band that stay in the first-level cache */
};

typedef struct {
    const micro_window *window;
    const float *weights, *bounds;
    float bias;
    int columns; /* per row of a band, or per phase of two */
    int flags;
} depthwise_plane;

static inline void store_partial(float *to, vector x, int count)
{
    if (count >= LANES) {
        store(to, x);
        return;
    }
    float lanes[LANES];
    store(lanes, x);
    copy_floats(to, lanes, count);
}

/* `side` and `stride` are constants of each call. Without a second row, both pointers are the
   same. */
ALWAYS_INLINE void sum_rows(const depthwise_plane *p, const float *band, float *above, float *below,
                            int side, int stride)
{
    int width = p->window->out_width, columns = p->columns;
    for (int x = 0; x < width; x += LANES) {
        vector first = broadcast(p->bias), second = first;
        UNROLL
        for (int i = 0; i < side + stride; i++)
            UNROLL
            for (int j = 0; j < side; j++) {
                vector v = load(band + (i * stride + j % stride) * columns + x + j / stride);
                if (i < side)
                    first = add_product(first, v, broadcast(p->weights[i * side + j]));
                if (i >= stride)
                    second = add_product(second, v, broadcast(p->weights[(i - stride) * side + j]));
            }
        store_partial(below + x, apply_bounds(second, p->bounds, p->flags), width - x);
        store_partial(above + x, apply_bounds(first, p->bounds, p->flags), width - x);
    }
}

#define VARIANT(name, side, stride) \
    static __attribute__((noinline)) void name(const depthwise_plane *p, const float *band, \
                                               float *above, float *below) \
    { \
        sum_rows(p, band, above, below, side, stride); \
    }
VARIANT(three, 3, 1)
VARIANT(three_stride2, 3, 2)
VARIANT(five, 5, 1)
VARIANT(five_stride2, 5, 2)

typedef void (*pair_of_rows)(const depthwise_plane *, const float *, float *, float *);
static const pair_of_rows pairs_of_rows[2][2] = {{three, three_stride2}, {five, five_stride2}};

/* Copy `rows` rows of the map from `y` on, with their border, to the band; with stride 2 the
 * columns are split into even and odd ones. */
static void read_band(const depthwise_plane *p, const float *plane, int y, int rows, float *band)
{
    const micro_window *w = p->window;
    int stride = w->stride_x, columns = p->columns;
    for (int i = 0; i < rows; i++, y++, band += stride * columns) {
        const float *row = plane + (ptrdiff_t)y * w->width;
        if (y < 0 || y >= w->height)
            fill_zeros(band, stride * columns);
        else if (stride == 1)
            read_columns(row, w->width, -w->left, 1, columns, band);
        else
            split_columns(row, w->width, -w->left, columns, band, band + columns);
    }
}

/* One filter's plane. Weights: those of the window. */
int32_t DEPTHWISE(plane)(const float *map, const float *weights, const float *bias,
                         const float *bounds, float *y, const int32_t *window, int flags)
{
    const micro_window *w = (const micro_window *)window;
    int side = w->kernel_width, stride = w->stride_x;
    depthwise_plane p = {w, weights, bounds, *bias, 0, flags};
    p.columns = (w->out_width + LANES - 1) / LANES * LANES + (side - 1) / stride;
    /* at least two rows of the output */
    int fit = L1_BAND / (stride * p.columns) - side, height = micro_max(2, fit / stride / 2 * 2);
    float band[BAND];
    pair_of_rows form = pairs_of_rows[side == 5][stride == 2];
    for (int top = 0; top < w->out_height; top += height) {
        int rows = micro_min(height, w->out_height - top);
        read_band(&p, map, top * stride - w->top, (rows + 1) / 2 * 2 * stride + side - stride,
                  band);
        for (int r = 0; r < rows; r += 2) {
            float *above = y + (ptrdiff_t)(top + r) * w->out_width;
            form(&p, band + r * stride * stride * p.columns, above,
                 r + 1 < rows ? above + w->out_width : above);
        }
    }
    return 0;
}
