/* Copies rows of a map of floats with zeros around them; with stride 2, columns are split into even
 * and odd ones.
 *
 * Up to three floats after the requested ones are also written.
 */
#ifndef FLOAT_ROWS_H
#define FLOAT_ROWS_H

#include "micro.h"
#include <arm_neon.h>

static inline void fill_zeros(float *to, int from, int end)
{
    for (; from < end; from += 4)
        vst1q_f32(to + from, vdupq_n_f32(0));
}

/* Copy `size` floats of a row from column `x` on, with zeros for columns outside. */
static inline void copy_row(const float *row, int width, int x, int size, float *to)
{
    int first = micro_min(micro_max(0, -x), size);
    int end = micro_max(micro_min(size, width - x), first), k = first;
    row += x;
    fill_zeros(to, 0, first);
    for (; k + 8 <= end; k += 8) {
        float32x4_t a = vld1q_f32(row + k), b = vld1q_f32(row + k + 4);
        vst1q_f32(to + k, a);
        vst1q_f32(to + k + 4, b);
    }
    if (k + 4 <= end) {
        vst1q_f32(to + k, vld1q_f32(row + k));
        k += 4;
    }
    if (k < end && end - first >= 4)
        vst1q_f32(to + end - 4, vld1q_f32(row + end - 4));
    else
        for (; k < end; k++)
            to[k] = row[k];
    fill_zeros(to, end, size);
}

/* Split 2 * `size` floats from column `x` on into every second one, and those in between. */
static inline void split_row(const float *row, int width, int x, int size, float *even, float *odd)
{
    /* pairs with both floats inside of the map */
    int first = micro_min(x < 0 ? (1 - x) / 2 : 0, size);
    int end = micro_max(micro_min(size, (width - x) >> 1), first), k = first;
    row += x;
    fill_zeros(even, 0, first);
    fill_zeros(odd, 0, first);
    for (int has_more = end - first >= 4; has_more; has_more = k < end, k = micro_min(k, end - 4)) {
        float32x4x2_t pairs = vld2q_f32(row + 2 * k);
        vst1q_f32(even + k, pairs.val[0]);
        vst1q_f32(odd + k, pairs.val[1]);
        k += 4;
    }
    for (; k < end; k++) {
        even[k] = row[2 * k];
        odd[k] = row[2 * k + 1];
    }
    fill_zeros(even, end, size);
    fill_zeros(odd, end, size);
    if (first > 0 && x + 2 * first - 1 >= 0 && x + 2 * first - 1 < width)
        odd[first - 1] = row[2 * first - 1];
    if (end < size && x + 2 * end >= 0 && x + 2 * end < width)
        even[end] = row[2 * end];
}

#endif
