"""Pictures of graphs as SVG.

A graph becomes boxes in boxes (`boxes`), of which the block level leaves most closed (`blocks`);
they are put in rows and lanes (`lanes`), joined by lines (`tracks`), given pixels (`layout`) and
written (`svg`); `picture` is all of that.
"""

from enum import StrEnum


class Level(StrEnum):
    """How much a picture shows: blocks as boxes, or every operation in its blocks."""

    BLOCK = "block"
    OP = "op"
