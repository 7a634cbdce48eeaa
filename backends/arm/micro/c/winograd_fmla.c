/* Winograd's convolution for floats, on 64-bit NEON. */
#include "winograd_tiles.h"

#include "float_fmla_products.h"

#define WINOGRAD(what) micro_winograd_fmla_##what

#include "winograd_floats.h"
