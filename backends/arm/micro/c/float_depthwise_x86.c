/* Depthwise convolutions of floats for x86-64: windows of 3x3 and 5x5, two rows of outputs at once,
 * so that what both read is loaded once.
 */
#include "float_x86.h"

#define DEPTHWISE(what) micro_float_depthwise_x86_##what

enum {
    BAND = 8192, /* numbers of a band: rows of the map with their border */
    NEAR = 4096, /* that lie well in a first cache beside the rest */
};

typedef struct {
    const micro_window *window;
    const float *weights, *bounds;
    float bias;
    int columns; /* of a band's row, or of each of two that it is dealt into */
    int how;
} depthwise_plane;

static inline void store_some(float *to, vector x, int count)
{
    if (count >= LANES) {
        store(to, x);
        return;
    }
    float all[LANES];
    store(all, x);
    copy_floats(to, all, count);
}

/* `side` and `stride` are constants of each call. Where there is no second row, both are the same. */
ALWAYS_INLINE void sum_rows(const depthwise_plane *p, const float *band, float *above, float *below,
                            int side, int stride)
{
    int width = p->window->out_width, columns = p->columns;
    for (int x = 0; x < width; x += LANES) {
        vector first = repeated(p->bias), second = first;
        UNROLL
        for (int i = 0; i < side + stride; i++)
            UNROLL
            for (int j = 0; j < side; j++) {
                vector v = load(band + (i * stride + j % stride) * columns + x + j / stride);
                if (i < side)
                    first = added(first, v, repeated(p->weights[i * side + j]));
                if (i >= stride)
                    second = added(second, v, repeated(p->weights[(i - stride) * side + j]));
            }
        store_some(below + x, bounded(second, p->bounds, p->how), width - x);
        store_some(above + x, bounded(first, p->bounds, p->how), width - x);
    }
}

#define VARIANT(name, side, stride) \
    static __attribute__((noinline)) void name(const depthwise_plane *p, const float *band, \
                                               float *above, float *below) \
    { \
        sum_rows(p, band, above, below, side, stride); \
    }
VARIANT(three, 3, 1)
VARIANT(three_dealt, 3, 2)
VARIANT(five, 5, 1)
VARIANT(five_dealt, 5, 2)

typedef void (*pair_of_rows)(const depthwise_plane *, const float *, float *, float *);
static const pair_of_rows pairs_of_rows[2][2] = {{three, three_dealt}, {five, five_dealt}};

/* Rows of the map from `y` on that rows of the output read, with their border; columns are dealt
 * into as many rows as the stride is. */
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
            deal_columns(row, w->width, -w->left, columns, band, band + columns);
    }
}

/* One filter's plane. Weights: the window's. */
int32_t DEPTHWISE(plane)(const float *map, const float *weights, const float *bias,
                         const float *bounds, float *y, const int32_t *window, int how)
{
    const micro_window *w = (const micro_window *)window;
    int side = w->kernel_width, stride = w->stride_x;
    depthwise_plane p = {w, weights, bounds, *bias, 0, how};
    p.columns = (w->out_width + LANES - 1) / LANES * LANES + (side - 1) / stride;
    /* two rows of the output at least */
    int fit = NEAR / (stride * p.columns) - side, height = micro_most(2, fit / stride / 2 * 2);
    float band[BAND];
    pair_of_rows form = pairs_of_rows[side == 5][stride == 2];
    for (int top = 0; top < w->out_height; top += height) {
        int rows = micro_least(height, w->out_height - top);
        read_band(&p, map, top * stride - w->top, (rows + 1) / 2 * 2 * stride + side - stride, band);
        for (int r = 0; r < rows; r += 2) {
            float *above = y + (ptrdiff_t)(top + r) * w->out_width;
            form(&p, band + r * stride * stride * p.columns, above,
                 r + 1 < rows ? above + w->out_width : above);
        }
    }
    return 0;
}
