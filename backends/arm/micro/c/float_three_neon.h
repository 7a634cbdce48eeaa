/* Depthwise windows of 3x3 for 32-bit NEON: eight columns of two rows at once.
 *
 * A row's ten columns are in five doublewords. The last tap reads them directly. The middle tap
 * needs vext, which costs half a load. A row is loaded while the products of the row before it are
 * computed, and the first row of the next eight columns before the results are stored.
 *
 *   q0 to d4   weights, by lane           q3          the bias
 *   q4, q5     columns of the first tap   q7, q8      of the second; with stride 2 of the last
 *   q9, q10    sums of the row above      q11, q12    of the row below
 *   q6, q13    columns of the second tap with stride 2
 *   q14, q15   bounds
 */
#ifndef FLOAT_THREE_NEON_H
#define FLOAT_THREE_NEON_H

#include <arm_neon.h>

#define VMLA(to, by, w) "vmla.f32 " #to ", " #by ", " w "\n"
#define PAIR_A(x, y, w) VMLA(q9, x, w) VMLA(q10, y, w)
#define PAIR_B(x, y, w) VMLA(q11, x, w) VMLA(q12, y, w)
#define HALVES_A(w) VMLA(d18, d9, w) VMLA(d19, d10, w) VMLA(d20, d11, w) VMLA(d21, d12, w)
#define HALVES_B(w) VMLA(d22, d9, w) VMLA(d23, d10, w) VMLA(d24, d11, w) VMLA(d25, d12, w)

#define W0 "d0[0]"
#define W1 "d0[1]"
#define W2 "d1[0]"
#define W3 "d1[1]"
#define W4 "d2[0]"
#define W5 "d2[1]"
#define W6 "d3[0]"
#define W7 "d3[1]"
#define W8 "d4[0]"

#define BEGIN "vmov q9, q3\n vmov q10, q3\n vmov q11, q3\n vmov q12, q3\n"
/* Advance by eight columns or, if fewer are left, to the last eight; `step` is in bytes. Placed
 * between products, where simple instructions cost no time, and so that no address waits for
 * another one. */
#define ADVANCE_1 "sub %[columns], %[columns], #8\n"
#define ADVANCE_2 "lsl %[step], %[columns], #2\n"
#define ADVANCE_3 "cmp %[columns], #8\n"
#define ADVANCE_4 "movge %[step], #32\n"
#define ADVANCE_5 "movlt %[columns], #8\n"
#define ADVANCE_6 "add %[at], %[at], %[back]\n"
#define ADVANCE_7 "add %[at], %[at], %[step]\n"
/* As in float_neon.c, comparisons with zero are integer comparisons. */
#define AT_LEAST(q) "vmax.s32 " #q ", " #q ", q14\n"
#define AT_MOST(q) "vmin.f32 " #q ", " #q ", q15\n"
/* In an order in which no instruction waits for a product or a comparison. */
#define LOWER_BOUND_ALL AT_LEAST(q9) AT_LEAST(q10) AT_LEAST(q11) AT_LEAST(q12)
#define BOTH_BOUNDS_ALL \
    AT_LEAST(q9) AT_LEAST(q10) AT_MOST(q9) AT_LEAST(q11) AT_LEAST(q12) AT_MOST(q11) AT_MOST(q12) \
    AT_MOST(q10)
/* Without a second row, both pointers are the same. */
#define WRITE \
    "vst1.32 {d22-d25}, [%[below]], %[step]\n vst1.32 {d18-d21}, [%[above]], %[step]\n" \
    "cmp %[step], #0\n bne 1b\n"

#define LOAD_ROW_1 "vld1.32 {d8-d11}, [%[at]]!\n"
#define LOAD_ROW_2 "vld1.32 {d12}, [%[at]], %[next]\n"
#define SHIFT_COLUMNS \
    "vext.32 d14, d8, d9, #1\n vext.32 d15, d9, d10, #1\n vext.32 d16, d10, d11, #1\n" \
    "vext.32 d17, d11, d12, #1\n"
#define STRIDE1_A(u, w) PAIR_A(q4, q5, u) HALVES_A(w)
#define STRIDE1_B(u, w) PAIR_B(q4, q5, u) HALVES_B(w)
#define STRIDE1_BEGIN LOAD_ROW_1 LOAD_ROW_2
#define STRIDE1_BOTH(u, v, w, x, y, z) \
    SHIFT_COLUMNS STRIDE1_A(u, w) STRIDE1_B(x, z) LOAD_ROW_1 PAIR_A(q7, q8, v) LOAD_ROW_2 \
    PAIR_B(q7, q8, y)
#define STRIDE1 \
    SHIFT_COLUMNS STRIDE1_A(W0, W2) LOAD_ROW_1 VMLA(q9, q7, W1) LOAD_ROW_2 VMLA(q10, q8, W1) \
    STRIDE1_BOTH(W3, W4, W5, W0, W1, W2) STRIDE1_BOTH(W6, W7, W8, W3, W4, W5) SHIFT_COLUMNS \
    VMLA(q11, q4, W6) ADVANCE_1 VMLA(q12, q5, W6) ADVANCE_2 VMLA(d22, d9, W8) ADVANCE_3 \
    VMLA(d23, d10, W8) ADVANCE_4 VMLA(d24, d11, W8) ADVANCE_6 VMLA(d25, d12, W8) ADVANCE_7 \
    LOAD_ROW_1 VMLA(q11, q7, W7) ADVANCE_5 LOAD_ROW_2 VMLA(q12, q8, W7)

/* Split columns: those of the first tap, then of the last one; those of the second one follow
   them. */
#define LOAD_FIRST "vld1.32 {d8-d11}, [%[at]], %[four]\n"
#define LOAD_LAST "vld1.32 {d14-d17}, [%[at]], %[turn]\n"
#define LOAD_ODD_1 "vld1.32 {d12-d13}, [%[at]]!\n"
#define LOAD_ODD_2 "vld1.32 {d26-d27}, [%[at]], %[next]\n"
#define STRIDE2_BEGIN LOAD_FIRST LOAD_LAST
#define STRIDE2_A(u, v, w) \
    PAIR_A(q4, q5, u) LOAD_ODD_1 VMLA(q9, q7, w) LOAD_ODD_2 VMLA(q10, q8, w) LOAD_FIRST \
    PAIR_A(q6, q13, v) LOAD_LAST
#define STRIDE2_B(u, v, w) \
    PAIR_B(q4, q5, u) LOAD_ODD_1 VMLA(q11, q7, w) LOAD_ODD_2 VMLA(q12, q8, w) LOAD_FIRST \
    PAIR_B(q6, q13, v) LOAD_LAST
#define STRIDE2 \
    STRIDE2_A(W0, W1, W2) STRIDE2_A(W3, W4, W5) PAIR_A(q4, q5, W6) PAIR_B(q4, q5, W0) LOAD_ODD_1 \
    PAIR_A(q7, q8, W8) LOAD_ODD_2 PAIR_B(q7, q8, W2) LOAD_FIRST PAIR_A(q6, q13, W7) \
    PAIR_B(q6, q13, W1) LOAD_LAST PAIR_B(q4, q5, W3) LOAD_ODD_1 VMLA(q11, q7, W5) ADVANCE_1 \
    LOAD_ODD_2 ADVANCE_2 VMLA(q12, q8, W5) ADVANCE_3 LOAD_FIRST ADVANCE_4 PAIR_B(q6, q13, W4) \
    ADVANCE_5 LOAD_LAST PAIR_B(q4, q5, W6) LOAD_ODD_1 VMLA(q11, q7, W8) LOAD_ODD_2 \
    VMLA(q12, q8, W8) ADVANCE_6 ADVANCE_7 LOAD_FIRST PAIR_B(q6, q13, W7) LOAD_LAST

/* Two rows of a result of at least eight columns; rows of the band are `pitch` bytes apart. */
#define THREE_ROWS(name, form, finish, rows, ahead, after) \
    static inline void name(const float *weights, const float *bias, const float *bounds, \
                            const float *at, float *above, float *below, int pitch, int columns) \
    { \
        int step; \
        __asm__ volatile( \
            "vld1.32 {d0-d3}, [%[weights]]\n add %[step], %[weights], #32\n" \
            "vld1.32 {d6[], d7[]}, [%[bias]]\n vld1.32 {d4}, [%[step]]\n" \
            "vld1.32 {d28[], d29[]}, [%[bounds]]\n add %[step], %[bounds], #4\n" \
            "vld1.32 {d30[], d31[]}, [%[step]]\n" form##_BEGIN \
            "1:\n" BEGIN form finish WRITE \
            : [at] "+r"(at), [above] "+r"(above), [below] "+r"(below), [columns] "+r"(columns), \
              [step] "=&r"(step) \
            : [weights] "r"(weights), [bias] "r"(bias), [bounds] "r"(bounds), [next] "r"(ahead), \
              [back] "r"(-(rows) * pitch), after \
            : "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", \
              "q13", "q14", "q15", "cc", "memory"); \
    }
#define STRIDE1_ROWS(name, finish) THREE_ROWS(name, STRIDE1, finish, 4, pitch - 32, [four] "i"(0))
#define STRIDE2_ROWS(name, finish) \
    THREE_ROWS(name, STRIDE2, finish, 5, pitch / 2 - 16, \
               [four] "r"(4) COMMA [turn] "r"(pitch / 2 - 4))
#define COMMA ,

STRIDE1_ROWS(stride1_unbounded, "")
STRIDE1_ROWS(stride1_lower_bound, LOWER_BOUND_ALL)
STRIDE1_ROWS(stride1_both_bounds, BOTH_BOUNDS_ALL)
STRIDE2_ROWS(stride2_unbounded, "")
STRIDE2_ROWS(stride2_lower_bound, LOWER_BOUND_ALL)
STRIDE2_ROWS(stride2_both_bounds, BOTH_BOUNDS_ALL)

#endif
