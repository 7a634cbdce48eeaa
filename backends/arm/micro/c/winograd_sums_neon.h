/* Sums of some tiles of a point and a block of four filters, in registers of 32-bit NEON.
 *
 * A file that includes this defines PRODUCTS_4, _8 and _12 in assembly. They add the products of
 * `channels` values from `pixels` and `weights` to the registers of EACH_n. They may use q0 to q3,
 * and `from` for twelve tiles. Not in C, because compilers spill the sums.
 */
#ifndef WINOGRAD_SUMS_NEON_H
#define WINOGRAD_SUMS_NEON_H

#include "micro.h"

/* Apply `what` to the sums of each filter: of four, eight or twelve tiles. */
#define EACH_4(what) what(q8) what(q9) what(q10) what(q11)
#define EACH_8(what) what(q8, q9) what(q10, q11) what(q12, q13) what(q14, q15)
#define EACH_12(what) what(q4, q5, q6) what(q7, q8, q9) what(q10, q11, q12) what(q13, q14, q15)
#define ZERO_4(a) "vmov.i32 " #a ", #0\n"
#define ZERO_8(a, b) ZERO_4(a) ZERO_4(b)
#define ZERO_12(a, b, c) ZERO_4(a) ZERO_4(b) ZERO_4(c)
#define READ_4(a) "vld1.32 {" #a "}, [%[from]], %[plane]\n"
#define READ_8(a, b) "vld1.32 {" #a ", " #b "}, [%[from]], %[plane]\n"
#define READ_12(a, b, c) "vldm %[from], {" #a "-" #c "}\n add %[from], %[from], %[plane]\n"
#define WRITE_4(a) "vst1.32 {" #a "}, [%[to]], %[plane]\n"
#define WRITE_8(a, b) "vst1.32 {" #a ", " #b "}, [%[to]], %[plane]\n"
#define WRITE_12(a, b, c) "vstm %[to], {" #a "-" #c "}\n add %[to], %[to], %[plane]\n"

/* Some tiles of one point: products of some channels are added to `to`, or written if these are the
 * first. `step` (bytes) and `ahead` (an operand) are the distances between channels of pixels and
 * weights. */
#define ADD_PRODUCTS(n, number, sum, step, ahead) \
    static inline void add_products_##n(const number *pixels, int pitch, const number *weights, \
                                        int channels, int begins, sum *to, int plane) \
    { \
        const sum *from = to; \
        __asm__ volatile( \
            "cmp %[begins], #0\n beq 1f\n" EACH_##n(ZERO_##n) "b 2f\n" \
            "1:\n" EACH_##n(READ_##n) "2:\n" PRODUCTS_##n EACH_##n(WRITE_##n) \
            : [pixels] "+r"(pixels), [weights] "+r"(weights), [channels] "+r"(channels), \
              [from] "+r"(from), [to] "+r"(to) \
            : [begins] "r"(begins), [pitch] "r"(step), [plane] "r"(4 * plane), [next] ahead \
            : "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", \
              "q13", "q14", "q15", "cc", "memory"); \
    }

#define ADD_POINTS(number, sum) \
    static inline void add_point(const number *pixels, int pitch, const number *weights, \
                                 int channels, int begins, sum *to, int plane, int tiles) \
    { \
        for (; tiles > 8; tiles -= 12, pixels += 12, to += 12) \
            add_products_12(pixels, pitch, weights, channels, begins, to, plane); \
        if (tiles > 4) \
            add_products_8(pixels, pitch, weights, channels, begins, to, plane); \
        else if (tiles > 0) \
            add_products_4(pixels, pitch, weights, channels, begins, to, plane); \
    }
#define ADD_POINT add_point

#endif
