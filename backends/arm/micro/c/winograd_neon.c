/* Winograd's convolution of floats for 32-bit NEON. */
#include "float_neon_products.h"

#define WINOGRAD(what) micro_winograd_neon_##what

#include "winograd_floats.h"
