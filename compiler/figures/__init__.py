"""Figures of graphs: SVG, PNG and PDF.

A graph becomes a tree of boxes (`box_tree`). At block level, most boxes are closed, and equal ones
are shown once (`block_folding`). The boxes are placed in rows and lanes (`box_placement`),
connected by lines and given pixel coordinates (`box_layout`, with a direction from `drawing`), and
put on a page (`page_layout`). The page is written as SVG (`svg`), or as a `scene` by `export`.
`graph_image` runs all steps.
"""

from enum import StrEnum


class Level(StrEnum):
    """Level of detail: blocks as boxes, or every operation within its blocks."""

    BLOCK = "block"
    OP = "op"


class Direction(StrEnum):
    """Direction of data flow."""

    DOWN = "down"
    RIGHT = "right"
