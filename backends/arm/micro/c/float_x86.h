/* Vectors of floats as wide as the processor's, for x86-64. */
#ifndef FLOAT_X86_H
#define FLOAT_X86_H

#include "micro.h"
#include <immintrin.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#define OF_VECTORS(what) _mm512_##what##_ps
#elif defined(__AVX2__)
enum { LANES = 8 };
#define OF_VECTORS(what) _mm256_##what##_ps
#else
enum { LANES = 4 };
#define OF_VECTORS(what) _mm_##what##_ps
#endif

typedef float vector __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4)));
typedef float loose_four __attribute__((vector_size(16), aligned(4)));

static inline vector load(const float *from) { return *(const loose *)from; }

static inline void store(float *to, vector x) { *(loose *)to = x; }

static inline vector repeated(float x) { return x - (vector){0}; }

/* sum + x * y, rounded once where the processor can. */
static inline vector added(vector sum, vector x, vector y)
{
#if defined(__FMA__)
    return __builtin_elementwise_fma(x, y, sum);
#else
    return sum + x * y;
#endif
}

/* At least, and at most: of what is not a number, instructions give the second. */
static inline vector at_least(vector x, vector low) { return OF_VECTORS(max)(low, x); }

static inline vector at_most(vector x, vector high) { return OF_VECTORS(min)(high, x); }

/* Copy some numbers. Not memcpy: most are few, and a call takes longer. */
static inline void copy_floats(float *to, const float *from, int count)
{
    int u = 0;
    if (count >= LANES) {
        for (; u < count - LANES; u += LANES)
            store(to + u, load(from + u));
        store(to + count - LANES, load(from + count - LANES));
        return;
    }
    if (count >= 4) {
        for (; u < count - 4; u += 4)
            *(loose_four *)(to + u) = *(const loose_four *)(from + u);
        *(loose_four *)(to + count - 4) = *(const loose_four *)(from + count - 4);
        return;
    }
    for (; u < count; u++)
        to[u] = from[u];
}

/* The same of every second number; none behind the last is read. */
static inline void copy_seconds(float *to, const float *from, int count)
{
    int u = 0;
    for (; u + 4 < count; u += 4) {
        loose_four a = *(const loose_four *)(from + 2 * u);
        loose_four b = *(const loose_four *)(from + 2 * u + 4);
        *(loose_four *)(to + u) = __builtin_shufflevector(a, b, 0, 2, 4, 6);
    }
    for (; u < count; u++)
        to[u] = from[2 * u];
}

static inline void copy_every(float *to, const float *from, int count, int step)
{
    if (step == 1)
        copy_floats(to, from, count);
    else if (step == 2)
        copy_seconds(to, from, count);
    else
        for (int u = 0; u < count; u++)
            to[u] = from[u * step];
}

static inline void fill_zeros(float *to, int count)
{
    for (int u = 0; u < count; u++)
        to[u] = 0;
}

#endif
