/* Products of floats for 32-bit NEON: four filters by four, eight or twelve pixels.
 *
 * Sums take twelve of sixteen registers, three hold pixels and one the weights, which vmla reads by
 * lane. In assembly because a compiler has vmla by lane only where it may round as it likes, and
 * then spills the sums: 1.2 cycles a product against 1.7.
 */
#ifndef FLOAT_NEON_PRODUCTS_H
#define FLOAT_NEON_PRODUCTS_H

#include <arm_neon.h>

#define SUMS(v) \
    [a##v] "+w"(sums[0][v]), [b##v] "+w"(sums[1][v]), [c##v] "+w"(sums[2][v]), \
    [d##v] "+w"(sums[3][v])
#define VECTOR(v) \
    "vmla.f32 %q[a" #v "], q" #v ", d6[0]\n vmla.f32 %q[b" #v "], q" #v ", d6[1]\n" \
    "vmla.f32 %q[c" #v "], q" #v ", d7[0]\n vmla.f32 %q[d" #v "], q" #v ", d7[1]\n"
#define LOOP(load, products, ...) \
    __asm__("1:\n vld1.32 {d6-d7}, [%[weights]]!\n" load "subs %[taps], %[taps], #1\n" products \
            "bne 1b\n" \
            : __VA_ARGS__, [panel] "+r"(panel), [weights] "+r"(weights), [taps] "+r"(taps) \
            : [pitch] "r"(4 * pitch) \
            : "q0", "q1", "q2", "q3", "cc", "memory")
/* Weights: for each tap one of each filter. */
#define MULTIPLY(n) \
    static inline void multiply_##n(const float *panel, int pitch, const float *weights, int taps, \
                                    float32x4_t (*sums)[3])

MULTIPLY(4) { LOOP("vld1.32 {d0-d1}, [%[panel]], %[pitch]\n", VECTOR(0), SUMS(0)); }

MULTIPLY(8) { LOOP("vld1.32 {d0-d3}, [%[panel]], %[pitch]\n", VECTOR(0) VECTOR(1), SUMS(0), SUMS(1)); }

MULTIPLY(12)
{
    const float *last = panel + 8;
    LOOP("vld1.32 {d0-d3}, [%[panel]], %[pitch]\n vld1.32 {d4-d5}, [%[last]], %[pitch]\n",
         VECTOR(0) VECTOR(1) VECTOR(2), SUMS(0), SUMS(1), SUMS(2), [last] "+r"(last));
}

#endif
