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
enum { PIXELS = 12 };

#include "float_gather.h"

/* What becomes of sums. */
enum {
    ADDS = 1,  /* they begin with what is in the result, not with the bias */
    LEAST = 2, /* they are at least bounds[0] */
    MOST = 4,  /* they are at most bounds[1] */
};

typedef struct {
    const float *panel, *weights, *bias, *bounds;
    int pitch, taps, how;
} float_block;

/* Some vectors of pixels of a whole block; `vectors` is a constant of each call. */
ALWAYS_INLINE void float_sums(const float_block *b, float *y, ptrdiff_t plane, int vectors)
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
