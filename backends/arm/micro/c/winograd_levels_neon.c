/* Winograd's convolution for 8-bit quantized values, on 32-bit NEON. */
#include "winograd_tiles.h"
#include "winograd_sums_neon.h"
#include <arm_neon.h>

#define WINOGRAD(what) micro_winograd_levels_neon_##what

#define ADD(sum, pixels, w) "vmlal.s16 " #sum ", " #pixels ", " #w "\n"
#define WEIGHTS(d) "vld1.16 {" d "}, [%[weights]], %[next]\n"
#define PIXELS(d) "vld1.16 {" d "}, [%[pixels]], %[pitch]\n"
#define COUNT(n) "subs %[channels], %[channels], #" #n "\n"
/* Two or four channels per iteration, so that no product waits for a load. */
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
/* Distance of a channel's weights, the 36 points of a block: winograd_levels.h. */
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
/* For 3x3 taps with stride 2: points of the first and the last tap, and six times the second. */
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
/* Write the points of nine taps of some channels of a block. In assembly, because everything fits
 * into registers but compilers spill, and because no address waits for the one before it. */
#define TRANSFORM(name, taps, fifth, sixth) \
    static inline void name(const int8_t *weights, int16_t *to, int channels) \
    { \
        __asm__ volatile( \
            "1:\n vld1.8 {d0-d3}, [%[weights]]\n vldr s8, [%[weights], #32]\n" \
            "add %[weights], %[weights], #36\n vmovl.s8 q8, d0\n vmovl.s8 q9, d1\n" \
            "vmovl.s8 q10, d2\n vmovl.s8 q11, d3\n vmovl.s8 q12, d4\n" \
            "subs %[channels], %[channels], #1\n" POINTS_##taps(d16, d17, d18, d0, d1, d2, d3) \
            POINTS_##taps(d19, d20, d21, d4, d5, d6, d7) \
            POINTS_##taps(d22, d23, d24, d8, d9, d10, d11) COLUMN_##taps(d16, d19, d22, 0) \
            COLUMN_##taps(d0, d4, d8, 48) COLUMN_##taps(d1, d5, d9, 96) \
            COLUMN_##taps(d2, d6, d10, 144) fifth sixth "add %[to], %[to], #288\n bne 1b\n" \
            : [weights] "+r"(weights), [to] "+r"(to), [channels] "+r"(channels) \
            : \
            : "q0", "q1", "q2", "q3", "q4", "q5", "q8", "q9", "q10", "q11", "q12", "q13", "q14", \
              "q15", "cc", "memory"); \
    }
TRANSFORM(transform_three, 3, COLUMN_3(d3, d7, d11, 192), COLUMN_3(d18, d21, d24, 240))
TRANSFORM(transform_two, 2, COLUMN_2(d18, d21, d24, 192), COLUMN_2(d3, d7, d11, 240))

static inline void transform_nine(const int8_t *weights, int16_t *to, int channels, int taps)
{
    if (taps == 2)
        transform_two(weights, to, channels);
    else
        transform_three(weights, to, channels);
}
#define NINE_TAPS transform_nine

#define POINT(q) "vld1.32 {" #q "}, [%[points]], %[step]\n"
#define ROW POINT(q0) POINT(q1) POINT(q2) POINT(q3) POINT(q4) POINT(q5)
/* The outputs of one side from the points in q0 to q5: 24, 12, 6 and 6 times; with four taps the
 * last one is missing. q6 is 6. */
#define SUMS_OF_PAIRS \
    "vadd.i32 q8, q1, q2\n vsub.i32 q9, q1, q2\n vadd.i32 q10, q3, q4\n vsub.i32 q11, q3, q4\n" \
    "vshl.i32 q12, q8, #2\n vshl.i32 q13, q9, #1\n"
#define OUTPUTS_3 \
    SUMS_OF_PAIRS "vshl.i32 q15, q11, #1\n vsub.i32 q12, q10, q12\n vsub.i32 q13, q11, q13\n" \
    "vsub.i32 q14, q10, q8\n vsub.i32 q15, q15, q9\n vmla.i32 q12, q0, q6\n vmla.i32 q15, q5, q6\n"
#define OUTPUTS_4 \
    SUMS_OF_PAIRS "vsub.i32 q14, q10, q8\n vsub.i32 q12, q10, q12\n vsub.i32 q13, q11, q13\n" \
    "vmla.i32 q14, q5, q6\n vmla.i32 q12, q0, q6\n"
#define KEEP "vstm %[at], {d24-d31}\n add %[at], %[at], #64\n"
#define GET(q, n, at) "vldr d" #q ", [%[at], #" #n "+" #at "]\n"
#define COLUMN(at) \
    GET(0, 0, at) GET(1, 8, at) GET(2, 64, at) GET(3, 72, at) GET(4, 128, at) GET(5, 136, at) \
    GET(6, 192, at) GET(7, 200, at) GET(8, 256, at) GET(9, 264, at) GET(10, 320, at) \
    GET(11, 328, at)
/* An output of a column; its factor without 9 is 2^shift. */
#define NINTH_OF(q) "vmul.i32 " #q ", " #q ", q7\n"
#define SHIFTED(q, shift) "vshr.s32 " #q ", " #q ", #" #shift "\n"
#define BIASED(q) "vadd.i32 " #q ", " #q ", q8\n"
#define PUT(d, e, n, at) \
    "vstr " #d ", [%[found], #" #n "+" #at "]\n vstr " #e ", [%[found], #" #n "+8+" #at "]\n"
#define BIAS "vld1.32 {d16[], d17[]}, [%[bias]]\n"
#define LEVELS_3(at, r, s, t) \
    COLUMN(at) OUTPUTS_3 BIAS NINTH_OF(q13) NINTH_OF(q14) NINTH_OF(q12) NINTH_OF(q15) \
    SHIFTED(q13, s) SHIFTED(q14, t) SHIFTED(q12, r) SHIFTED(q15, t) \
    BIASED(q13) BIASED(q14) BIASED(q12) BIASED(q15) \
    PUT(d26, d27, 64, at) PUT(d28, d29, 128, at) PUT(d24, d25, 0, at) PUT(d30, d31, 192, at)
#define LEVELS_4(at, r, s, t) \
    COLUMN(at) OUTPUTS_4 BIAS NINTH_OF(q13) NINTH_OF(q14) NINTH_OF(q12) \
    SHIFTED(q13, s) SHIFTED(q14, t) SHIFTED(q12, r) BIASED(q13) BIASED(q14) BIASED(q12) \
    PUT(d26, d27, 64, at) PUT(d28, d29, 128, at) PUT(d24, d25, 0, at)
/* Compute the sums of four tiles and add *bias, from points that are `step` bytes apart. In
 * assembly, because compilers use an address per point, and make each step wait for the one before
 * it. */
#define TILE_SUMS(name, taps, last) \
    static void name(const int32_t *points, int step, const int32_t *bias, int32x4_t *found) \
    { \
        int32x4_t between[6 * SIDE], *at = between; \
        __asm__ volatile( \
            "vmov.i32 q6, #6\n vdup.32 q7, %[ninth]\n" ROW OUTPUTS_##taps ROW KEEP \
            OUTPUTS_##taps ROW KEEP OUTPUTS_##taps ROW KEEP OUTPUTS_##taps ROW KEEP \
            OUTPUTS_##taps ROW KEEP OUTPUTS_##taps KEEP "sub %[at], %[at], #384\n" \
            LEVELS_##taps(0, 6, 5, 4) LEVELS_##taps(16, 5, 4, 3) LEVELS_##taps(32, 4, 3, 2) last \
            : [points] "+r"(points), [at] "+r"(at) \
            : [step] "r"(step), [bias] "r"(bias), [found] "r"(found), [ninth] "r"(0x38E38E39) \
            : "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", \
              "q13", "q14", "q15", "memory"); \
    }
TILE_SUMS(sums_of_three, 3, LEVELS_3(48, 4, 3, 2))
TILE_SUMS(sums_of_four, 4, "")
#define TILE_SUMS_3 sums_of_three
#define TILE_SUMS_4 sums_of_four

/* a + b * c. In assembly, because compilers multiply both halves of a difference. */
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
