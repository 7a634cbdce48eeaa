/* Tiles of outputs, which Winograd's method computes at once, and in which order they come. */
#ifndef WINOGRAD_TILES_H
#define WINOGRAD_TILES_H

#include "micro.h"

#ifndef FILTERS
#define FILTERS 4 /* of a block */
#endif

enum {
    SIDE = 4,     /* most outputs of a tile's side, of floats all */
    TILES = 64,   /* most tiles of a call */
    RUN = 16,     /* most tiles of a row that are read at once */
    COLUMNS = 72, /* that these read, 3 + 4 beyond the last */
};

/* Tiles of a row, from some tile of a band on. */
typedef struct {
    int at, count; /* the first one's number in the band, and how many there are */
    int y, x;      /* the first one's first output */
} tile_run;

static inline tile_run run_of(const micro_window *w, int first, int at, int tiles, int side)
{
    int across = (w->out_width + side - 1) / side, x = (first + at) % across;
    int count = micro_least(micro_least(tiles - at, across - x), RUN);
    return (tile_run){at, count, (first + at) / across * side, x * side};
}

static inline tile_run run_at(const micro_window *w, int first, int at, int tiles)
{
    return run_of(w, first, at, tiles, SIDE);
}

#endif
