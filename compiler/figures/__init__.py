"""Pictures of graphs: SVG, PNG and PDF.

A graph becomes boxes in boxes (`boxes`), of which the block level leaves most closed (`blocks`);
they are put in rows and lanes (`lanes`), joined by lines (`tracks`), given pixels (`layout`, in a
direction: `page`) and written (`svg`, or as a `scene` by `png` and `pdf`); `picture` is all of
that.
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
