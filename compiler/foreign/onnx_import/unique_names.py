"""What things are called: names of the file as identifiers, each used once."""

import re
from collections.abc import Iterable
from itertools import pairwise

LONGEST = 60
SIZES = frozenset({"C", "H", "W"})
"""What the language itself calls a value's size."""


def identifier(name: str, otherwise: str = "") -> str:
    """Return a name as an identifier of the language."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:LONGEST].rstrip("_")
    # Names of the language begin with a letter or an underscore, as Python's do.
    return f"_{plain}" if plain[:1].isdigit() or plain in SIZES else plain or otherwise


def of_weight(name: str) -> str:
    """Return the layer that a weight's name speaks of: `features.0` of `features.0.weight`.

    Empty where the name was made by a machine.
    """
    # PyTorch's `conv1.weight`, Keras's `conv1/kernel` and `bn/gamma`. Weights that PyTorch's
    # exporter folded have names that were counted, such as `onnx::Conv_123`.
    found = re.fullmatch(r"(.+?)[./](?:weight|bias|kernel|gamma|beta)", name)
    return found[1] if found and "::" not in found[1] else ""


def of_node(name: str, type: str) -> str:
    """Return the place that a node's name speaks of.

    `/layer1/layer1.0/conv1/Conv` is at `layer1.0.conv1`. Empty where there is none, as in the
    names that exporters count up.
    """
    parts = [part for part in name.split("/") if part]
    if parts and re.fullmatch(rf"({re.escape(type)}|node_\w+?)(_\d+)?|n\d+", parts[-1]):
        parts.pop()
    inner = [part for part, after in pairwise([*parts, ""]) if not after.startswith(f"{part}.")]
    return ".".join(inner)


class UniqueNames:
    """Names given so far; `fresh` gives another."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self.counts: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        """Return a name that none has: the one asked for, or that with a number."""
        unique = name
        while unique in self.taken:
            # Counted from where the last one ended: a thousand equal names take a thousand steps.
            self.counts[name] = self.counts.get(name, 1) + 1
            unique = f"{name}_{self.counts[name]}"
        self.taken.add(unique)
        return unique
