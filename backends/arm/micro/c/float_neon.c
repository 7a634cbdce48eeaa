/* Matrix products of floats for 32-bit NEON: four filters by twelve pixels. */
#include "float_neon_products.h"
#include "micro.h"

#define FLOATS(what) micro_float_neon_##what
enum { FILTERS = 4 };

#include "float_matrix.h"
