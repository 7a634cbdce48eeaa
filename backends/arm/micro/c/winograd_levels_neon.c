/* Winograd's convolution of levels for 32-bit NEON. */
#include "winograd_tiles.h"
#include <arm_neon.h>

#define WINOGRAD(what) micro_winograd_levels_neon_##what

#define SUMS(v) \
    [a##v] "+w"(sums[0][v]), [b##v] "+w"(sums[1][v]), [c##v] "+w"(sums[2][v]), \
    [d##v] "+w"(sums[3][v])
#define VECTOR(v, pixels, weights) \
    "vmlal.s16 %q[a" #v "], " #pixels ", " #weights "[0]\n" \
    "vmlal.s16 %q[b" #v "], " #pixels ", " #weights "[1]\n" \
    "vmlal.s16 %q[c" #v "], " #pixels ", " #weights "[2]\n" \
    "vmlal.s16 %q[d" #v "], " #pixels ", " #weights "[3]\n"
#define WEIGHTS(d) "vld1.16 {" d "}, [%[weights]], %[next]\n"
#define PIXELS(d) "vld1.16 {" d "}, [%[pixels]], %[pitch]\n"
/* Two or four channels a turn, so that none waits for what is read. In assembly because compilers
 * spill the sums. */
#define LOOP(read, products, ...) \
    __asm__("1:\n" read "subs %[turns], %[turns], #1\n" products "bne 1b\n" \
            : __VA_ARGS__, [pixels] "+r"(pixels), [weights] "+r"(weights), [turns] "+r"(turns) \
            : [pitch] "r"(2 * pitch), [next] "r"(2 * next) \
            : "q0", "q1", "q2", "q3", "cc", "memory")

#define MULTIPLY(n) \
    static inline void multiply_##n(const int16_t *pixels, int pitch, const int16_t *weights, \
                                    int next, int channels, int32x4_t (*sums)[3])

MULTIPLY(4)
{
    int turns = channels / 4;
    LOOP(WEIGHTS("d4") PIXELS("d0") WEIGHTS("d5") PIXELS("d1") WEIGHTS("d6") PIXELS("d2")
             WEIGHTS("d7") PIXELS("d3"),
         VECTOR(0, d0, d4) VECTOR(0, d1, d5) VECTOR(0, d2, d6) VECTOR(0, d3, d7), SUMS(0));
}

MULTIPLY(8)
{
    int turns = channels / 2;
    LOOP(WEIGHTS("d6") WEIGHTS("d7") PIXELS("d0-d1") PIXELS("d3-d4"),
         VECTOR(0, d0, d6) VECTOR(1, d1, d6) VECTOR(0, d3, d7) VECTOR(1, d4, d7), SUMS(0), SUMS(1));
}

MULTIPLY(12)
{
    int turns = channels / 2;
    LOOP(WEIGHTS("d6") WEIGHTS("d7") PIXELS("d0-d2") PIXELS("d3-d5"),
         VECTOR(0, d0, d6) VECTOR(1, d1, d6) VECTOR(2, d2, d6) VECTOR(0, d3, d7)
             VECTOR(1, d4, d7) VECTOR(2, d5, d7),
         SUMS(0), SUMS(1), SUMS(2));
}

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
