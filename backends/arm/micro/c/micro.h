/* Shared definitions of all micro-kernels.
 *
 * A micro-kernel is a C function that TVM's loops call. It allocates no memory, has no state, and
 * returns 0.
 * Activations are quantized values of which the low 8 bits are stored: 256 values from
 * `offset` - 128 on. A stored byte x is the value (int8_t)(x - offset) + offset: unsigned values have
 * the offset 128, signed ones 0. Zero is byte 0. Planes are stored channel by channel, row by row,
 * without a border.
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
    int32_t offset;
    int32_t band; /* rows of the output that a depthwise kernel computes at once */
} micro_window;

/* Before a loop with a constant count: its variables stay in registers. */
#define UNROLL _Pragma("GCC unroll 32")

/* For functions with constant arguments: each call gets its own code. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

static inline int micro_min(int a, int b) { return a < b ? a : b; }

static inline int micro_max(int a, int b) { return a > b ? a : b; }

/* Return the quantized value of a stored byte. */
static inline int read_value(uint8_t byte, int offset) { return (int8_t)(byte - offset) + offset; }

#endif
