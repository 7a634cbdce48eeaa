/* Vectors of floats with the processor's full width, for x86-64. */
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

static inline vector broadcast(float x) { return x - (vector){0}; }

/* sum + x * y, rounded once if the processor has FMA. */
static inline vector add_product(vector sum, vector x, vector y)
{
#if defined(__FMA__)
    return __builtin_elementwise_fma(x, y, sum);
#else
    return sum + x * y;
#endif
}

/* Keep vectors in their registers: otherwise the compiler moves them and spills some. */
#define STAYS(vectors, count) \
    UNROLL \
    for (int stays = 0; stays < count; stays++) \
    __asm__("" : "+v"(vectors[stays]))

/* Clamp from below and above. If an operand is NaN, the instructions return the second one. */
static inline vector at_least(vector x, vector low) { return OF_VECTORS(max)(low, x); }

static inline vector at_most(vector x, vector high) { return OF_VECTORS(min)(high, x); }

/* Flags for sums. */
enum {
    ADDS = 1,  /* start from the result's values, not from the bias */
    LOWER_BOUND = 2, /* clamp to at least bounds[0] */
    UPPER_BOUND = 4,  /* clamp to at most bounds[1] */
};

static inline vector apply_bounds(vector x, const float *bounds, int flags)
{
    if (flags & LOWER_BOUND)
        x = at_least(x, broadcast(bounds[0]));
    if (flags & UPPER_BOUND)
        x = at_most(x, broadcast(bounds[1]));
    return x;
}

/* Copy some floats. Not memcpy: most copies are short, and a call takes longer. */
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

#if defined(__AVX512F__)
#define EVERY_SECOND(a, b, i) \
    __builtin_shufflevector(a, b, i, i + 2, i + 4, i + 6, i + 8, i + 10, i + 12, i + 14, i + 16, \
                            i + 18, i + 20, i + 22, i + 24, i + 26, i + 28, i + 30)
#elif defined(__AVX2__)
#define EVERY_SECOND(a, b, i) \
    __builtin_shufflevector(a, b, i, i + 2, i + 4, i + 6, i + 8, i + 10, i + 12, i + 14)
#else
#define EVERY_SECOND(a, b, i) __builtin_shufflevector(a, b, i, i + 2, i + 4, i + 6)
#endif

/* Copy every second float; none after the last is read. */
static inline void copy_stride_2(float *to, const float *from, int count)
{
    int u = 0;
    for (; u + LANES < count; u += LANES) {
        vector a = load(from + 2 * u), b = load(from + 2 * u + LANES);
        store(to + u, EVERY_SECOND(a, b, 0));
    }
    if (count > LANES) {
        /* start one float before the first of these; that float is not copied */
        from += 2 * (count - LANES) - 1;
        vector a = load(from), b = load(from + LANES);
        store(to + count - LANES, EVERY_SECOND(a, b, 1));
        return;
    }
    for (; u < count; u++)
        to[u] = from[2 * u];
}

/* Split 2 * `count` floats into every second one, and those after them. */
static inline void split_pairs(float *even, float *odd, const float *from, int count)
{
    int u = 0;
    for (int more = count >= LANES; more; more = u < count, u = micro_min(u, count - LANES)) {
        vector a = load(from + 2 * u), b = load(from + 2 * u + LANES);
        store(even + u, EVERY_SECOND(a, b, 0));
        store(odd + u, EVERY_SECOND(a, b, 1));
        u += LANES;
    }
    for (; u < count; u++) {
        even[u] = from[2 * u];
        odd[u] = from[2 * u + 1];
    }
}

static inline void copy_strided(float *to, const float *from, int count, int step)
{
    if (step == 1)
        copy_floats(to, from, count);
    else if (step == 2)
        copy_stride_2(to, from, count);
    else
        for (int u = 0; u < count; u++)
            to[u] = from[u * step];
}

static inline void fill_zeros(float *to, int count)
{
    for (int u = 0; u < count; u++)
        to[u] = 0;
}

/* Copy every `step`-th float of a row from column `x` on, with zeros for columns outside. */
static inline void read_columns(const float *row, int width, int x, int step, int count, float *to)
{
    int first = micro_min(x < 0 ? (-x + step - 1) / step : 0, count);
    int end = micro_max(first, x < width ? micro_min(count, (width - 1 - x) / step + 1) : 0);
    fill_zeros(to, first);
    copy_strided(to + first, row + (x + first * step), end - first, step);
    fill_zeros(to + end, count - end);
}

/* Split 2 * `count` floats of a row from column `x` on, with zeros for columns outside. */
static inline void split_columns(const float *row, int width, int x, int count, float *even,
                                float *odd)
{
    /* pairs with both floats inside of the map */
    int first = micro_min(x < 0 ? (1 - x) / 2 : 0, count);
    int end = micro_max(first, micro_min(count, (width - x) >> 1));
    fill_zeros(even, first);
    fill_zeros(odd, first);
    split_pairs(even + first, odd + first, row + (x + 2 * first), end - first);
    fill_zeros(even + end, count - end);
    fill_zeros(odd + end, count - end);
    if (first > 0 && x + 2 * first - 1 >= 0 && x + 2 * first - 1 < width)
        odd[first - 1] = row[x + 2 * first - 1];
    if (end < count && x + 2 * end >= 0 && x + 2 * end < width)
        even[end] = row[x + 2 * end];
}

/* Load four floats from each of LANES / 4 addresses that are `step` apart. */
static inline vector load_fours(const float *from, ptrdiff_t step)
{
#if defined(__AVX512F__)
    __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(from));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(from + step), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(from + 2 * step), 2);
    return _mm512_insertf32x4(x, _mm_loadu_ps(from + 3 * step), 3);
#elif defined(__AVX2__)
    return _mm256_loadu2_m128(from + step, from);
#else
    (void)step;
    return load(from);
#endif
}

static inline void store_fours(float *to, ptrdiff_t step, vector x)
{
    float lanes[LANES];
    store(lanes, x);
    UNROLL
    for (int i = 0; i < LANES; i += 4, to += step)
        *(loose_four *)to = *(const loose_four *)(lanes + i);
}

/* Exchange element 4 * l + j of x[i] with element 4 * l + i of x[j]. */
static inline void transpose_fours(vector *x)
{
    vector a = OF_VECTORS(unpacklo)(x[0], x[1]), b = OF_VECTORS(unpackhi)(x[0], x[1]);
    vector c = OF_VECTORS(unpacklo)(x[2], x[3]), d = OF_VECTORS(unpackhi)(x[2], x[3]);
    x[0] = OF_VECTORS(shuffle)(a, c, 0x44);
    x[1] = OF_VECTORS(shuffle)(a, c, 0xee);
    x[2] = OF_VECTORS(shuffle)(b, d, 0x44);
    x[3] = OF_VECTORS(shuffle)(b, d, 0xee);
}

#endif
