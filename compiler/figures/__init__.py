"""Pictures of graphs: SVG, PNG and PDF.

A graph becomes boxes in boxes (`box_tree`), of which the block level leaves most closed and shows
equal ones once (`block_folding`). They are put in rows and lanes (`box_placement`), joined by lines
and given pixels (`box_layout`, in a direction: `drawing`) and a page (`page_layout`), and written:
by `svg`, or as a `scene` by `export`. `graph_picture` is all of that.
"""

from enum import StrEnum


class Level(StrEnum):
    """How much a picture shows: blocks as boxes, or every operation in its blocks."""

    BLOCK = "block"
    OP = "op"


class Direction(StrEnum):
    """Where a picture's values flow to."""

    DOWN = "down"
    RIGHT = "right"
