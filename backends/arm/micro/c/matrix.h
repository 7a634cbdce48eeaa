/* A convolution as a matrix product: tiles of eight pixels by four or eight filters.
 *
 * A kernel's file defines before it includes this file:
 *
 *   MATRIX(what)      the names of its functions
 *   FILTERS           filters per block
 *   interleave(...)   writes four rows of eight bytes to the next 32 bytes of a panel
 *   multiply(...)     returns the sums of a block, FILTERS by eight
 *   store(...)        writes the quantized values of a block
 *
 * A panel has the input of eight pixels' windows, in quads (groups of four taps). Taps are ordered
 * by channel, row and column of the window, and padded with zeros. Weights are blocks of FILTERS
 * filters, each (quads, order of the kernel); there is one bias and one factor per filter. All
 * three are padded with zeros to full blocks.
 */
#include "requantize.h"

enum { PIXELS = 8 };

#include "matrix_gather.h"

/* Write a partial block, at the last filter or pixel. */
static void write_partial_block(const sums *block_sums, const float *factor, uint8_t *y, int plane,
                                int count, int filters, int low, int high)
{
    uint8_t block[FILTERS][PIXELS];
    store(block_sums, factor, block[0], PIXELS, low, high);
    for (int i = 0; i < filters; i++)
        memcpy(y + (ptrdiff_t)i * plane, block[i], (size_t)count);
}

/* Write the quantized values of `filters` filters for the first `count` pixels of a panel; planes
 * of filters are `plane` bytes apart. */
int32_t MATRIX(levels)(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                       const float *factor, uint8_t *y, int quads, int filters, int plane,
                       int count, int low, int high)
{
    for (int f = 0; f < filters; f += FILTERS, weights += 4 * FILTERS * quads, bias += FILTERS) {
        int block_filters = micro_min(FILTERS, filters - f);
        sums block_sums = multiply(panel, weights, bias, quads);
        if (block_filters == FILTERS && count == PIXELS)
            store(&block_sums, factor + f, y + (ptrdiff_t)f * plane, plane, low, high);
        else
            write_partial_block(&block_sums, factor + f, y + (ptrdiff_t)f * plane, plane, count,
                                block_filters, low, high);
    }
    return 0;
}

/* Write the dequantized values, sum * factor. */
int32_t MATRIX(reals)(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                      const float *factor, float *y, int quads, int filters, int plane, int count)
{
    for (int f = 0; f < filters; f += FILTERS, weights += 4 * FILTERS * quads, bias += FILTERS) {
        int block_filters = micro_min(FILTERS, filters - f);
        sums block_sums = multiply(panel, weights, bias, quads);
        for (int i = 0; i < block_filters; i++) {
            int32_t row[PIXELS];
            memcpy(row, &block_sums.row[i], sizeof row);
            for (int u = 0; u < count; u++)
                y[(ptrdiff_t)(f + i) * plane + u] = (float)row[u] * factor[f + i];
        }
    }
    return 0;
}
