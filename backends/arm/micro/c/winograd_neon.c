/* Winograd's convolution for floats, on 32-bit NEON. */
#include "winograd_sums_neon.h"
#include <arm_neon.h>

#define WINOGRAD(what) micro_winograd_neon_##what

/* The points of a column of three floats, written `row` bytes apart; `b` becomes `twice`. No
 * instruction waits for the one before it. */
#define POINTS_OF_COLUMN(a, b, c, twice) \
    "vadd.f32 q12, " #a ", " #c "\n vmov q13, " #a "\n vst1.32 {" #a "}, [%[at]], %[row]\n" \
    "vadd.f32 q14, q12, " #b "\n vmla.f32 q13, " #c ", q15\n vsub.f32 q12, q12, " #b "\n" \
    "vadd.f32 " #twice ", " #b ", " #b "\n vst1.32 {q14}, [%[at]], %[row]\n" \
    "add %[to], %[to], %[step]\n vst1.32 {q12}, [%[at]], %[row]\n" \
    "vadd.f32 q14, q13, " #twice "\n vsub.f32 q13, q13, " #twice "\n" \
    "vst1.32 {q14}, [%[at]], %[row]\n vst1.32 {q13}, [%[at]], %[row]\n" \
    "vst1.32 {" #c "}, [%[at]]\n mov %[at], %[to]\n"

/* Write the points of 3x3 taps of a block, `step` floats apart. In assembly, because everything
 * fits into registers but compilers spill: 90 cycles per filter and channel, before 120. */
static inline void transform_three(const float *weights, float *to, ptrdiff_t step)
{
    float *at = to;
    __asm__("vldm %[weights]!, {d0-d15}\n vld1.32 {d16-d17}, [%[weights]]\n vmov.f32 q15, #4.0\n"
            POINTS_OF_COLUMN(q0, q3, q6, q9)
            "add %[at], %[at], %[row]\n sub %[at], %[at], %[step], lsl #1\n"
            "sub %[to], %[to], %[step]\n" POINTS_OF_COLUMN(q2, q5, q8, q9)
            /* the first plus four times the last, and the first plus the last */
            "vmov q9, q0\n vmov q10, q3\n vmov q11, q6\n"
            "vmla.f32 q9, q2, q15\n vmla.f32 q10, q5, q15\n vmla.f32 q11, q8, q15\n"
            "vadd.f32 q0, q0, q2\n vadd.f32 q3, q3, q5\n vadd.f32 q6, q6, q8\n"
            "vadd.f32 q2, q0, q1\n vadd.f32 q8, q6, q7\n vadd.f32 q5, q3, q4\n"
            POINTS_OF_COLUMN(q2, q5, q8, q5)
            "vsub.f32 q0, q0, q1\n vsub.f32 q6, q6, q7\n vsub.f32 q3, q3, q4\n"
            POINTS_OF_COLUMN(q0, q3, q6, q3)
            "vadd.f32 q1, q1, q1\n vadd.f32 q4, q4, q4\n vadd.f32 q7, q7, q7\n"
            "vadd.f32 q2, q9, q1\n vadd.f32 q8, q11, q7\n vadd.f32 q5, q10, q4\n"
            POINTS_OF_COLUMN(q2, q5, q8, q5)
            "vsub.f32 q9, q9, q1\n vsub.f32 q11, q11, q7\n vsub.f32 q10, q10, q4\n"
            POINTS_OF_COLUMN(q9, q10, q11, q10)
            : [weights] "+r"(weights), [to] "+r"(to), [at] "+r"(at)
            : [step] "r"(4 * step), [row] "r"(24 * step)
            : "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12",
              "q13", "q14", "q15", "memory");
}

#define ADD(sum, by, w) "vmla.f32 " #sum ", " #by ", " #w "\n"
#define TILE(q) "vld1.32 {" #q "}, [%[pixels]], %[pitch]\n"
#define WEIGHTS(d) "vld1.32 {" #d "}, [%[weights]]!\n"
#define COUNT "subs %[channels], %[channels], #1\n"
/* Products of a channel; for four or eight tiles the next channel's values are loaded meanwhile. */
#define FOUR(x, u, v, load, more, count) \
    ADD(q8, x, u[0]) load ADD(q9, x, u[1]) more ADD(q10, x, v[0]) count ADD(q11, x, v[1])
#define EVEN_4 FOUR(q0, d4, d5, TILE(q1), WEIGHTS(q3), )
#define PRODUCTS_4 \
    TILE(q0) WEIGHTS(q2) "subs %[channels], %[channels], #2\n ble 4f\n" \
    "3:\n" EVEN_4 \
    FOUR(q1, d6, d7, TILE(q0), WEIGHTS(q2), "subs %[channels], %[channels], #2\n") "bgt 3b\n" \
    "4:\n blt 5f\n" EVEN_4 FOUR(q1, d6, d7, , , ) "b 6f\n" \
    "5:\n" FOUR(q0, d4, d5, , , ) "6:\n"
#define LEFT ADD(q8, q0, d4[0]) ADD(q10, q0, d4[1]) ADD(q12, q0, d5[0]) ADD(q14, q0, d5[1])
#define RIGHT_1 ADD(q9, q1, d4[0]) ADD(q11, q1, d4[1])
#define RIGHT_2 ADD(q13, q1, d5[0]) ADD(q15, q1, d5[1])
#define NEAR_8 "vld1.32 {q0}, [%[pixels]]!\n"
#define PRODUCTS_8 \
    NEAR_8 TILE(q1) WEIGHTS(q2) COUNT "beq 4f\n" \
    "3:\n" LEFT NEAR_8 RIGHT_1 WEIGHTS(d4) RIGHT_2 COUNT WEIGHTS(d5) TILE(q1) "bne 3b\n" \
    "4:\n" LEFT RIGHT_1 RIGHT_2
#define TWELVE(a, b, c, w) ADD(a, q0, w) ADD(b, q1, w) ADD(c, q2, w)
#define PRODUCTS_12 \
    "add %[from], %[pixels], #32\n" \
    "3:\n" WEIGHTS(q3) TILE(q0-q1) "vld1.32 {q2}, [%[from]], %[pitch]\n" COUNT \
    TWELVE(q4, q5, q6, d6[0]) TWELVE(q7, q8, q9, d6[1]) TWELVE(q10, q11, q12, d7[0]) \
    TWELVE(q13, q14, q15, d7[1]) "bne 3b\n"

ADD_PRODUCTS(4, float, float, 4 * pitch, "i"(0))
ADD_PRODUCTS(8, float, float, 4 * pitch - 16, "i"(0))
ADD_PRODUCTS(12, float, float, 4 * pitch, "i"(0))
ADD_POINTS(float, float)

#define THREE_TAPS transform_three
#include "winograd_floats.h"
