/* Matrix products of floats for 64-bit NEON: eight filters by twelve pixels. */
enum { FILTERS = 8 };

#include "float_fmla_products.h"

#define FLOATS(what) micro_float_fmla_##what

#include "float_matrix.h"
