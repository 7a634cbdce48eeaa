/* A convolution as a product of matrices: tiles of eight pixels by four or eight filters.
 *
 * A kernel's file defines before it includes this:
 *
 *   MATRIX(what)      its functions' names
 *   FILTERS           filters of a block
 *   interleave(...)   four rows of eight bytes into the next 32 of a panel
 *   multiply(...)     the sums of a block, FILTERS by eight
 *   store(...)        the levels of a block
 *
 * A panel holds, for eight pixels, what their windows read, four taps after four (a quad); taps are
 * counted through channels, rows and columns of the window, and filled up with zeros. Weights are
 * blocks of FILTERS, each (quads, as the kernel wants them); biases and factors one a filter. All
 * three are filled up with zeros to whole blocks.
 */
#include "requantize.h"

enum { PIXELS = 8 };

#include "matrix_gather.h"

/* A block that is cut off at the last filter or pixel. */
static void matrix_rest(const sums *found, const float *factor, uint8_t *y, int plane, int count,
                        int filters, int low, int high)
{
    uint8_t block[FILTERS][PIXELS];
    store(found, factor, block[0], PIXELS, low, high);
    for (int i = 0; i < filters; i++)
        memcpy(y + (ptrdiff_t)i * plane, block[i], (size_t)count);
}

/* Write the levels of `filters` filters for the first `count` pixels of a panel; a filter's plane
 * is `plane` bytes behind the one before it. */
int32_t MATRIX(levels)(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                       const float *factor, uint8_t *y, int quads, int filters, int plane,
                       int count, int low, int high)
{
    for (int f = 0; f < filters; f += FILTERS, weights += 4 * FILTERS * quads, bias += FILTERS) {
        int rest = micro_least(FILTERS, filters - f);
        sums found = multiply(panel, weights, bias, quads);
        if (rest == FILTERS && count == PIXELS)
            store(&found, factor + f, y + (ptrdiff_t)f * plane, plane, low, high);
        else
            matrix_rest(&found, factor + f, y + (ptrdiff_t)f * plane, plane, count, rest, low,
                        high);
    }
    return 0;
}

/* The same as real numbers, sum * factor. */
int32_t MATRIX(reals)(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                      const float *factor, float *y, int quads, int filters, int plane, int count)
{
    for (int f = 0; f < filters; f += FILTERS, weights += 4 * FILTERS * quads, bias += FILTERS) {
        int rest = micro_least(FILTERS, filters - f);
        sums found = multiply(panel, weights, bias, quads);
        for (int i = 0; i < rest; i++) {
            int32_t row[PIXELS];
            memcpy(row, &found.row[i], sizeof row);
            for (int u = 0; u < count; u++)
                y[(ptrdiff_t)(f + i) * plane + u] = (float)row[u] * factor[f + i];
        }
    }
    return 0;
}
