/* Depthwise convolutions of floats, windows of 3x3 and 5x5: planes by bands of the map's rows.
 *
 * A kernel's file defines DEPTHWISE(what), its functions' names, before it includes this, and behind
 * it form_of.
 */
#ifndef FLOAT_DEPTHWISE_H
#define FLOAT_DEPTHWISE_H

#include "float_rows.h"

enum {
    BAND = 8192, /* numbers of a band: rows of the map with their border */
    NEAR = 4096, /* that lie well in a first cache beside the rest */
    BESIDE = 3,  /* numbers of a row that may be written beside it */
    MOST_WEIGHTS = 7, /* vectors of a window's weights */
};

/* What becomes of sums. */
enum {
    LEAST = 2, /* they are at least bounds[0] */
    MOST = 4,  /* they are at most bounds[1] */
};

typedef float32x4_t four;

typedef struct {
    const micro_window *window;
    const float *bounds;
    four weights[MOST_WEIGHTS], bias;
    int columns; /* of a band's row, or of each of two that it is dealt into */
} depthwise_plane;

/* Two rows of outputs from a band. */
typedef void (*pair_of_rows)(const depthwise_plane *, const float *, float *, float *);

/* Return what computes them; rows of less than four columns are written as four. */
static pair_of_rows form_of(const micro_window *w, int how);

/* The same for rows of less than four columns, of which others are written too. */
static void sum_narrow(pair_of_rows form, const depthwise_plane *p, const float *band, float *above,
                       float *below)
{
    int width = p->window->out_width;
    float rows[2][4];
    form(p, band, rows[0], rows[1]);
    memcpy(below, rows[1], sizeof *below * (size_t)width);
    memcpy(above, rows[0], sizeof *above * (size_t)width);
}

/* Rows of the map from `y` on that rows of the output read, with their border. What lies beside rows
 * of stride 1 is zero already. */
static void read_band(const micro_window *w, const float *plane, int y, int rows, int columns,
                      float *band)
{
    int stride = w->stride_x, size = columns - BESIDE, left = micro_least(w->left, size);
    int inside = micro_most(micro_least(size - left, w->width), 0);
    for (int i = 0; i < rows; i++, y++, band += stride * columns) {
        const float *row = plane + (ptrdiff_t)y * w->width;
        if (y < 0 || y >= w->height)
            memset(band, 0, sizeof *band * (size_t)(stride * columns));
        else if (stride == 1)
            memcpy(band + left, row, sizeof *band * (size_t)inside);
        else
            deal_row(row, w->width, -w->left, size, band, band + columns);
    }
}

/* One filter's plane. Weights: the window's, filled up to whole vectors. */
int32_t DEPTHWISE(plane)(const float *map, const float *weights, const float *bias,
                         const float *bounds, float *y, const int32_t *window, int how)
{
    const micro_window *w = (const micro_window *)window;
    int side = w->kernel_width, stride = w->stride_x, vectors = (side * side + 3) / 4;
    depthwise_plane p = {.window = w, .bounds = bounds, .bias = vdupq_n_f32(*bias)};
    for (int v = 0; v < vectors; v++)
        p.weights[v] = vld1q_f32(weights + 4 * v);
    p.columns = micro_most(w->out_width, 4) + (side - 1) / stride + BESIDE;
    /* two rows of the output at least */
    int fit = NEAR / (stride * p.columns) - side, height = micro_most(2, fit / stride / 2 * 2);
    float band[BAND];
    pair_of_rows form = form_of(w, how);
    if (stride == 1) {
        int most = (micro_least(height, w->out_height) + 1) / 2 * 2 + side - 1;
        memset(band, 0, sizeof *band * (size_t)(most * p.columns));
    }
    for (int top = 0; top < w->out_height; top += height) {
        int rows = micro_least(height, w->out_height - top);
        read_band(w, map, top * stride - w->top, (rows + 1) / 2 * 2 * stride + side - stride,
                  p.columns, band);
        for (int r = 0; r < rows; r += 2) {
            const float *from = band + r * stride * stride * p.columns;
            float *above = y + (ptrdiff_t)(top + r) * w->out_width;
            float *below = r + 1 < rows ? above + w->out_width : above;
            if (w->out_width < 4)
                sum_narrow(form, &p, from, above, below);
            else
                form(&p, from, above, below);
        }
    }
    return 0;
}

#endif
