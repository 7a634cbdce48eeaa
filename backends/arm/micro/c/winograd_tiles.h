/* The tiles of outputs of Winograd's method, and their order. */
#ifndef WINOGRAD_TILES_H
#define WINOGRAD_TILES_H

#include "micro.h"

#ifndef FILTERS
#define FILTERS 4 /* per block */
#endif

enum {
    SIDE = 4,     /* largest number of outputs per side of a tile; floats always have 4 */
    TILES = 64,   /* most tiles per call */
    RUN = 16,     /* most tiles of a row that are read at once */
    COLUMNS = 72, /* columns that these read, 3 + 4 after the last output */
};

/* Consecutive tiles of a row, from a tile of a band on. */
typedef struct {
    int at, count; /* the first tile's number in the band, and their count */
    int y, x;      /* the position of the first tile's first output */
} tile_run;

static inline tile_run find_run(const micro_window *w, int first, int at, int tiles, int side)
{
    int across = (w->out_width + side - 1) / side, x = (first + at) % across;
    int count = micro_min(micro_min(tiles - at, across - x), RUN);
    return (tile_run){at, count, (first + at) / across * side, x * side};
}

static inline tile_run find_float_run(const micro_window *w, int first, int at, int tiles)
{
    return find_run(w, first, at, tiles, SIDE);
}

#endif
