/* A convolution of floats as a product of matrices: tiles of up to twelve pixels by FILTERS filters.
 *
 * A kernel's file defines before it includes this:
 *
 *   FLOATS(what)      its functions' names
 *   FILTERS           filters of a block
 *   multiply_4, _8, _12(...)   add the products of some taps to the sums of 4, 8 or 12 pixels
 *
 * A panel holds twelve numbers for each tap, what the windows of twelve pixels read; taps are counted
 * through channels, rows and columns of the window. Weights are blocks of FILTERS, each (taps,
 * FILTERS), biases one a filter; both are filled up with zeros to whole blocks.
 */
#define ELEMENT float
enum { PIXELS = 12 };
#include "gather.h"

/* What becomes of sums. */
enum {
    ADDS = 1,  /* they begin with what is in the result, not with the bias */
    LEAST = 2, /* they are at least bounds[0] */
    MOST = 4,  /* they are at most bounds[1] */
};

/* Write every `stride`th of `count` numbers. */
static inline void float_taken(const float *from, int stride, float *to, int count)
{
    int u = 0;
    if (stride == 1)
        for (; u + 4 <= count; u += 4)
            vst1q_f32(to + u, vld1q_f32(from + u));
    else if (stride == 2)
        for (; u + 4 <= count; u += 4)
            vst1q_f32(to + u, vld2q_f32(from + 2 * u).val[0]);
    for (; u < count; u++)
        to[u] = from[u * stride];
}

/* Write what all taps of a row of the window read for some pixels of a tile. */
static inline void float_taps(const float *from, const micro_window *w, float *to, int count)
{
    int j = 0, stride = w->stride_x, next = w->dilation_x;
    if (stride == 2 && next == 1 && count == PIXELS)
        for (; j + 2 <= w->kernel_width; j += 2, from += 2, to += 2 * PIXELS)
            for (int u = 0; u < PIXELS; u += 4) {
                float32x4x2_t both = vld2q_f32(from + 2 * u);
                vst1q_f32(to + u, both.val[0]);
                vst1q_f32(to + PIXELS + u, both.val[1]);
            }
    for (; j < w->kernel_width; j++, from += next, to += PIXELS)
        float_taken(from, stride, to, count);
}

/* Write what `count` pixels of the output from `first` on read of some channels. */
int32_t FLOATS(gather)(const float *map, float *panel, const int32_t *window, int first, int count,
                       int channel, int channels)
{
    const micro_window *w = (const micro_window *)window;
    int taps = channels * w->kernel_height * w->kernel_width;
    if (count < PIXELS)
        memset(panel, 0, sizeof *panel * (size_t)taps * PIXELS);
    if (w->kernel_height == 1 && w->kernel_width == 1 && w->stride_x == 1 && w->height == 1 &&
        w->left == 0 && w->out_width == w->width) {
        const float *row = map + (ptrdiff_t)channel * w->width + first;
        for (; taps; taps--, row += w->width, panel += PIXELS)
            float_taken(row, 1, panel, count);
        return 0;
    }
    gather_run runs[PIXELS];
    float copy[REACH];
    int found = gather_runs(w, first, count, runs);
    for (int c = channel; c < channel + channels; c++)
        for (int i = 0; i < w->kernel_height; i++, panel += w->kernel_width * PIXELS)
            for (int r = 0; r < found; r++) {
                int y = runs[r].y + i * w->dilation_y;
                const float *from = gather_row(map, w, &runs[r], c, y, copy);
                float_taps(from, w, panel + runs[r].at, runs[r].count);
            }
    return 0;
}

typedef struct {
    const float *panel, *weights, *bias, *bounds;
    int pitch, taps, how;
} float_block;

/* Some vectors of pixels of a whole block; `vectors` is a constant of each call. */
static inline void float_sums(const float_block *b, float *y, ptrdiff_t plane, int vectors)
{
    float32x4_t sums[FILTERS][3];
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            sums[i][v] = b->how & ADDS ? vld1q_f32(y + i * plane + 4 * v) : vdupq_n_f32(b->bias[i]);
    switch (vectors) {
    case 1:
        multiply_4(b->panel, b->pitch, b->weights, b->taps, sums);
        break;
    case 2:
        multiply_8(b->panel, b->pitch, b->weights, b->taps, sums);
        break;
    default:
        multiply_12(b->panel, b->pitch, b->weights, b->taps, sums);
    }
    if (b->how & LEAST)
        UNROLL
        for (int i = 0; i < FILTERS; i++)
            UNROLL
            for (int v = 0; v < vectors; v++)
                sums[i][v] = vmaxq_f32(sums[i][v], vdupq_n_f32(b->bounds[0]));
    if (b->how & MOST)
        UNROLL
        for (int i = 0; i < FILTERS; i++)
            UNROLL
            for (int v = 0; v < vectors; v++)
                sums[i][v] = vminq_f32(sums[i][v], vdupq_n_f32(b->bounds[1]));
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            vst1q_f32(y + i * plane + 4 * v, sums[i][v]);
}

/* A block that is cut off at the last filter or pixel. */
static void float_rest(const float_block *b, float *y, ptrdiff_t plane, int filters, int count)
{
    float block[FILTERS][PIXELS] = {{0}};
    size_t size = sizeof *y * (size_t)count;
    if (b->how & ADDS)
        for (int i = 0; i < filters; i++)
            memcpy(block[i], y + i * plane, size);
    if (count <= 4)
        float_sums(b, block[0], PIXELS, 1);
    else if (count <= 8)
        float_sums(b, block[0], PIXELS, 2);
    else
        float_sums(b, block[0], PIXELS, 3);
    for (int i = 0; i < filters; i++)
        memcpy(y + i * plane, block[i], size);
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
            float_sums(&b, to, plane, 3);
        else
            float_rest(&b, to, plane, rest, count);
    }
    return 0;
}
