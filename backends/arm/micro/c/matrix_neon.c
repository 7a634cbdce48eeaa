/* Matrix products for 32-bit NEON: four filters by eight pixels, in pairs of taps.
 *
 * vmull.s8 and vmlal.s8 multiply two taps of four pixels each. With |x| <= 128 and |w| <= 127, the
 * sum of two products fits in 16 bits. vpadal.s16 adds the two taps to the sums. In assembly,
 * because compilers spill the sums: 0.29 instructions per product, with intrinsics 0.45.
 */
#define MATRIX(what) micro_matrix_neon_##what
#include "matrix_neon_pairs.h"
#include "requantize.h"

enum { FILTERS = 4 };

typedef struct {
    int32x4_t row[FILTERS][2];
} sums;

/* Two filters. d6 and d7 repeat their weights of taps 0 and 1; lanes i and j of d5 have those of
 * taps 2 and 3. A register is loaded two products before it is read, so that no product waits.
 * BEGIN leaves d6 and d7 to END, which can load others between its products. */
#define BEGIN(i, j) \
    "vmull.s8 q4, d0, d6\n vmull.s8 q5, d1, d6\n vdup.16 d6, d5[" #i "]\n" \
    "vmull.s8 q6, d0, d7\n vmull.s8 q7, d1, d7\n vdup.16 d7, d5[" #j "]\n"
#define END(fill_6, fill_7) \
    "vmlal.s8 q4, d2, d6\n vmlal.s8 q5, d3, d6\n" fill_6 \
    "vmlal.s8 q6, d2, d7\n vmlal.s8 q7, d3, d7\n" fill_7
#define REPEAT(to, i) "vdup.16 d" #to ", d4[" #i "]\n"
#define ADD(a, b, c, d) \
    "vpadal.s16 %q[" #a "], q4\n vpadal.s16 %q[" #b "], q5\n" \
    "vpadal.s16 %q[" #c "], q6\n vpadal.s16 %q[" #d "], q7\n"

/* Weights: for each quad, taps 0 and 1 of four filters, then their taps 2 and 3. */
static inline sums multiply(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                            int quads)
{
    int32x4_t start = vld1q_s32(bias);
    int32x4_t a0 = vdupq_lane_s32(vget_low_s32(start), 0), a1 = a0;
    int32x4_t b0 = vdupq_lane_s32(vget_low_s32(start), 1), b1 = b0;
    int32x4_t c0 = vdupq_lane_s32(vget_high_s32(start), 0), c1 = c0;
    int32x4_t d0 = vdupq_lane_s32(vget_high_s32(start), 1), d1 = d0;
    __asm__("vld1.8 {d0-d3}, [%[panel]]!\n vld1.8 {d4-d5}, [%[weights]]!\n"
            REPEAT(6, 0) REPEAT(7, 1)
            "1:\n subs %[quads], %[quads], #1\n"
            BEGIN(0, 1) END(REPEAT(6, 2), REPEAT(7, 3)) ADD(a0, a1, b0, b1) BEGIN(2, 3)
            "beq 2f\n vld1.8 {d4-d5}, [%[weights]]!\n"
            END(REPEAT(6, 0), REPEAT(7, 1)) "vld1.8 {d0-d3}, [%[panel]]!\n"
            ADD(c0, c1, d0, d1) "b 1b\n"
            "2:\n" END("", "") ADD(c0, c1, d0, d1)
            : [a0] "+w"(a0), [a1] "+w"(a1), [b0] "+w"(b0), [b1] "+w"(b1), [c0] "+w"(c0),
              [c1] "+w"(c1), [d0] "+w"(d0), [d1] "+w"(d1), [panel] "+r"(panel),
              [weights] "+r"(weights), [quads] "+r"(quads)
            :
            : "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "cc", "memory");
    return (sums){{{a0, a1}, {b0, b1}, {c0, c1}, {d0, d1}}};
}

#include "matrix_neon_store.h"
#include "matrix.h"
