/* Depthwise convolutions of floats with windows of 3x3 and 5x5, in bands of the map's rows.
 *
 * A kernel's file defines DEPTHWISE(what), the names of its functions, before it includes this
 * file, and select_rows after it.
 */
#ifndef FLOAT_DEPTHWISE_H
#define FLOAT_DEPTHWISE_H

#include "float_rows.h"

enum {
    BAND = 8192, /* floats in a band: rows of the map with their border */
    L1_BAND = 4096, /* floats in a band that stay in the first-level cache */
    ROW_PADDING = 3,  /* floats after a row that may be written */
    MAX_WEIGHTS = 7, /* vectors of a window's weights */
};

/* Flags for the results. */
enum {
    LOWER_BOUND = 2, /* clamp to at least bounds[0] */
    UPPER_BOUND = 4,  /* clamp to at most bounds[1] */
};

typedef float32x4_t four;

typedef struct {
    const micro_window *window;
    const float *bounds;
    four weights[MAX_WEIGHTS], bias;
    int columns; /* per row of a band, or per phase of two */
} depthwise_plane;

/* Computes two rows of outputs from a band. */
typedef void (*pair_of_rows)(const depthwise_plane *, const float *, float *, float *);

/* Return the function for a window; rows of less than four columns are written as four. */
static pair_of_rows select_rows(const micro_window *w, int flags);

/* Like `form`, for rows of less than four columns. */
static void sum_narrow(pair_of_rows form, const depthwise_plane *p, const float *band, float *above,
                       float *below)
{
    int width = p->window->out_width;
    float rows[2][4];
    form(p, band, rows[0], rows[1]);
    memcpy(below, rows[1], sizeof *below * (size_t)width);
    memcpy(above, rows[0], sizeof *above * (size_t)width);
}

/* Copy `rows` rows of the map from `y` on, with their border, to the band. With stride 1, the
 * elements before and after a row are already zero. */
static void read_band(const micro_window *w, const float *plane, int y, int rows, int columns,
                      float *band)
{
    int stride = w->stride_x, size = columns - ROW_PADDING, left = micro_min(w->left, size);
    int inside = micro_max(micro_min(size - left, w->width), 0);
    for (int i = 0; i < rows; i++, y++, band += stride * columns) {
        const float *row = plane + (ptrdiff_t)y * w->width;
        if (y < 0 || y >= w->height)
            memset(band, 0, sizeof *band * (size_t)(stride * columns));
        else if (stride == 1)
            memcpy(band + left, row, sizeof *band * (size_t)inside);
        else
            split_row(row, w->width, -w->left, size, band, band + columns);
    }
}

/* One filter's plane. Weights: those of the window, padded to full vectors. */
int32_t DEPTHWISE(plane)(const float *map, const float *weights, const float *bias,
                         const float *bounds, float *y, const int32_t *window, int flags)
{
    const micro_window *w = (const micro_window *)window;
    int side = w->kernel_width, stride = w->stride_x, vectors = (side * side + 3) / 4;
    depthwise_plane p = {.window = w, .bounds = bounds, .bias = vdupq_n_f32(*bias)};
    for (int v = 0; v < vectors; v++)
        p.weights[v] = vld1q_f32(weights + 4 * v);
    p.columns = micro_max(w->out_width, 4) + (side - 1) / stride + ROW_PADDING;
    /* at least two rows of the output */
    int fit = L1_BAND / (stride * p.columns) - side, height = micro_max(2, fit / stride / 2 * 2);
    float band[BAND];
    pair_of_rows form = select_rows(w, flags);
    if (stride == 1) {
        int most = (micro_min(height, w->out_height) + 1) / 2 * 2 + side - 1;
        memset(band, 0, sizeof *band * (size_t)(most * p.columns));
    }
    for (int top = 0; top < w->out_height; top += height) {
        int rows = micro_min(height, w->out_height - top);
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
