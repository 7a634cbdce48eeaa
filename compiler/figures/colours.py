"""The colours of pictures."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Paint:
    """The colours of a kind of box; its own lets as much of what is below through."""

    fill: str = "#fff"
    stroke: str = "#8c959f"
    opacity: str = ""


TEXT, FAINT, LINE, WHITE = "#24292f", "#57606a", "#6e7781", "#fff"
PAINTS: Mapping[str, Paint] = {
    "block": Paint("#8c959f", opacity=".1"),
    "conv": Paint("#ddf4ff", "#54aeff"),
    "norm": Paint("#fff8c5", "#d4a72c"),
    "activation": Paint("#ffebe9", "#ff8182"),
    "pool": Paint("#dafbe1", "#4ac26b"),
    "join": Paint("#fbefff", "#c297ff"),
    "layout": Paint("#eaeef2"),
    "closed": Paint("#f6f8fa", "#57606a"),
    "input": Paint("#24292f", "#24292f"),
    "output": Paint("#24292f", "#24292f"),
}
DARK = ("input", "output")
"""Kinds whose texts are white."""
