/* Winograd's convolution of levels for 32-bit NEON. */
#include "winograd_tiles.h"
#include "winograd_sums_neon.h"
#include <arm_neon.h>

#define WINOGRAD(what) micro_winograd_levels_neon_##what

#define ADD(sum, pixels, w) "vmlal.s16 " #sum ", " #pixels ", " #w "\n"
#define WEIGHTS(d) "vld1.16 {" d "}, [%[weights]], %[next]\n"
#define PIXELS(d) "vld1.16 {" d "}, [%[pixels]], %[pitch]\n"
#define COUNT(n) "subs %[channels], %[channels], #" #n "\n"
/* Two or four channels a turn, so that none waits for what is read. */
#define VECTOR(a, b, c, d, x, w) ADD(a, x, w[0]) ADD(b, x, w[1]) ADD(c, x, w[2]) ADD(d, x, w[3])
#define FIRST(x, w) VECTOR(q8, q9, q10, q11, x, w)
#define PRODUCTS_4 \
    "3:\n" WEIGHTS("d4") PIXELS("d0") WEIGHTS("d5") PIXELS("d1") WEIGHTS("d6") PIXELS("d2") \
    WEIGHTS("d7") PIXELS("d3") COUNT(4) \
    FIRST(d0, d4) FIRST(d1, d5) FIRST(d2, d6) FIRST(d3, d7) "bne 3b\n"
#define BOTH(x, y, w) VECTOR(q8, q10, q12, q14, x, w) VECTOR(q9, q11, q13, q15, y, w)
#define PRODUCTS_8 \
    "3:\n" WEIGHTS("d6") WEIGHTS("d7") PIXELS("d0-d1") PIXELS("d3-d4") COUNT(2) \
    BOTH(d0, d1, d6) BOTH(d3, d4, d7) "bne 3b\n"
#define ALL(x, y, z, w) \
    VECTOR(q4, q7, q10, q13, x, w) VECTOR(q5, q8, q11, q14, y, w) VECTOR(q6, q9, q12, q15, z, w)
#define PRODUCTS_12 \
    "3:\n" WEIGHTS("d6") WEIGHTS("d7") PIXELS("d0-d2") PIXELS("d3-d5") COUNT(2) \
    ALL(d0, d1, d2, d6) ALL(d3, d4, d5, d7) "bne 3b\n"
/* Of a channel's weights, 36 points of a block: winograd_levels.h. */
#define NEXT "r"(2 * 36 * FILTERS)
ADD_PRODUCTS(4, int16_t, int32_t, 2 * pitch, NEXT)
ADD_PRODUCTS(8, int16_t, int32_t, 2 * pitch, NEXT)
ADD_PRODUCTS(12, int16_t, int32_t, 2 * pitch, NEXT)
ADD_POINTS(int16_t, int32_t)

/* The points of three taps of a row or column. No instruction waits for the one before it. */
#define POINTS_3(a, b, c, r, s, t, u) \
    "vshl.i16 d31, " #c ", #2\n vadd.i16 d30, " #a ", " #c "\n vadd.i16 d29, " #b ", " #b "\n" \
    "vadd.i16 d31, " #a ", d31\n vadd.i16 " #r ", d30, " #b "\n vsub.i16 " #s ", d30, " #b "\n" \
    "vadd.i16 " #t ", d31, d29\n vsub.i16 " #u ", d31, d29\n"
/* Of 3x3 taps of stride 2: of the first and the last, and six times the second. */
#define POINTS_2(a, b, c, r, s, t, u) \
    "vadd.i16 " #r ", " #a ", " #c "\n vadd.i16 d30, " #b ", " #b "\n" \
    "vsub.i16 " #s ", " #a ", " #c "\n vshl.i16 d31, " #b ", #2\n" \
    "vadd.i16 " #t ", " #r ", " #c "\n vadd.i16 " #u ", d30, d31\n"
#define STORE(a, b, c, d, e, f, at) \
    "vstr " #a ", [%[to], #" #at "]\n vstr " #b ", [%[to], #" #at "+8]\n" \
    "vstr " #c ", [%[to], #" #at "+16]\n vstr " #d ", [%[to], #" #at "+24]\n" \
    "vstr " #e ", [%[to], #" #at "+32]\n vstr " #f ", [%[to], #" #at "+40]\n"
#define COLUMN_3(a, b, c, at) \
    POINTS_3(a, b, c, d25, d26, d27, d28) STORE(a, d25, d26, d27, d28, c, at)
#define COLUMN_2(a, b, c, at) \
    POINTS_2(a, b, c, d25, d26, d27, d28) STORE(a, d25, d26, d27, c, d28, at)
/* Write the points of nine taps of a block. In assembly because all of it fits into registers, where
 * a compiler spills, and because no address waits for the one before it. */
#define TRANSFORM(name, taps, fifth, sixth) \
    static inline void name(const int8_t *weights, int16_t *to) \
    { \
        __asm__ volatile( \
            "vldr s8, [%[weights], #32]\n vld1.8 {d0-d3}, [%[weights]]\n" \
            "vmovl.s8 q12, d4\n vmovl.s8 q8, d0\n vmovl.s8 q9, d1\n vmovl.s8 q10, d2\n" \
            "vmovl.s8 q11, d3\n" POINTS_##taps(d16, d17, d18, d0, d1, d2, d3) \
            POINTS_##taps(d19, d20, d21, d4, d5, d6, d7) \
            POINTS_##taps(d22, d23, d24, d8, d9, d10, d11) COLUMN_##taps(d16, d19, d22, 0) \
            COLUMN_##taps(d0, d4, d8, 48) COLUMN_##taps(d1, d5, d9, 96) \
            COLUMN_##taps(d2, d6, d10, 144) fifth sixth \
            : \
            : [weights] "r"(weights), [to] "r"(to) \
            : "q0", "q1", "q2", "q3", "q4", "q5", "q8", "q9", "q10", "q11", "q12", "q13", "q14", \
              "q15", "memory"); \
    }
TRANSFORM(transform_three, 3, COLUMN_3(d3, d7, d11, 192), COLUMN_3(d18, d21, d24, 240))
TRANSFORM(transform_two, 2, COLUMN_2(d18, d21, d24, 192), COLUMN_2(d3, d7, d11, 240))
#define NINE_TAPS(weights, to, taps) \
    (taps) == 2 ? transform_two(weights, to) : transform_three(weights, to)

/* a + b * c. In assembly because compilers multiply both halves of a difference. */
static inline int32x4_t plus_times(int32x4_t a, int32x4_t b, int32_t c)
{
    __asm__("vmla.i32 %q0, %q1, %q2" : "+w"(a) : "w"(b), "w"(vdupq_n_s32(c)));
    return a;
}

static inline int32x4_t times(int32x4_t a, int32_t b)
{
    int32x4_t product;
    __asm__("vmul.i32 %q0, %q1, %q2" : "=w"(product) : "w"(a), "w"(vdupq_n_s32(b)));
    return product;
}

#include "winograd_levels.h"
