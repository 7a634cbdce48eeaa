/* Matrix products for 64-bit NEON with 8-bit dot products: eight filters by eight pixels. */
#define MATRIX(what) micro_matrix_sdot_##what
#include "matrix_fours.h"
#include "requantize.h"

enum { FILTERS = 8 };

typedef struct {
    int32x4_t row[FILTERS][2];
} sums;

#define FILTER(i, weights, lane) \
    do { \
        a.row[i][0] = vdotq_laneq_s32(a.row[i][0], x0, weights, lane); \
        a.row[i][1] = vdotq_laneq_s32(a.row[i][1], x1, weights, lane); \
    } while (0)

/* Weights: for each quad, four taps of eight filters. */
static inline sums multiply(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                            int quads)
{
    sums a;
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        a.row[i][0] = a.row[i][1] = vdupq_n_s32(bias[i]);
    for (; quads; quads--, panel += 32, weights += 32) {
        int8x16_t x0 = vld1q_s8(panel), x1 = vld1q_s8(panel + 16);
        int8x16_t w0 = vld1q_s8(weights), w1 = vld1q_s8(weights + 16);
        FILTER(0, w0, 0);
        FILTER(1, w0, 1);
        FILTER(2, w0, 2);
        FILTER(3, w0, 3);
        FILTER(4, w1, 0);
        FILTER(5, w1, 1);
        FILTER(6, w1, 2);
        FILTER(7, w1, 3);
    }
    return a;
}

#include "matrix_neon_store.h"
#include "matrix.h"
