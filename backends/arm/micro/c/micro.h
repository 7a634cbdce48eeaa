/* Shared definitions of all micro-kernels.
 *
 * A micro-kernel is a C function that TVM's loops call. It allocates no memory, has no state, and
 * returns 0.
 * Activations are 8-bit quantized values, unsigned if `flip` is 0x80, signed if it is 0, so that
 * (int8_t)(x ^ flip) is x - 128 or x. Zero is value 0. Planes are stored channel by channel, row by
 * row, without a border.
 */
#ifndef MICRO_H
#define MICRO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A window that slides over a map, with the channels of one sum. */
typedef struct {
    int32_t channels, height, width; /* of the map */
    int32_t out_height, out_width;
    int32_t kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x, top, left;
    int32_t flip;
    int32_t band; /* rows of the output that a depthwise kernel computes at once */
} micro_window;

/* Before a loop with a constant count: its variables stay in registers. */
#define UNROLL _Pragma("GCC unroll 32")

/* For functions with constant arguments: each call gets its own code. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

static inline int micro_min(int a, int b) { return a < b ? a : b; }

static inline int micro_max(int a, int b) { return a > b ? a : b; }

#endif
