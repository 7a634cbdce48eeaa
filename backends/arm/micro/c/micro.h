/* What all micro-kernels share.
 *
 * A micro-kernel is a C function that TVM's loops call; it allocates nothing, keeps nothing, and
 * returns 0.
 * Activations are levels, one byte each: unsigned ones where `flip` is 0x80, signed ones where it is
 * 0, so that (int8_t)(x ^ flip) is x - 128 or x. Zero is level 0. Planes lie channel after channel,
 * row after row, without a border.
 */
#ifndef MICRO_H
#define MICRO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A window that slides over a map, with the channels that one sum takes in. */
typedef struct {
    int32_t channels, height, width; /* of the map */
    int32_t out_height, out_width;
    int32_t kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x, top, left;
    int32_t flip;
    int32_t band; /* rows of the output that a depthwise kernel computes at once */
} micro_window;

/* Before a loop of a fixed count: what it works on is to stay in registers. */
#define UNROLL _Pragma("GCC unroll 32")

/* Of functions that are told constants: each call is to be code of its own. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

static inline int micro_least(int a, int b) { return a < b ? a : b; }

static inline int micro_most(int a, int b) { return a > b ? a : b; }

#endif
