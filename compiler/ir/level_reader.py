"""Backends whose integer artifacts can be looked into: a protocol beside those of `backend`."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.target import Target

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class LevelReader(Protocol):
    """A backend whose integer artifacts can be looked into while they run here."""

    def inner_levels(
        self, target: Target, folder: Path, source: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the artifact in `folder` on tensors; yield what it computes inside for each.

        Args:
            target: One of the backend's.
            folder: Where the artifact's files are.
            source: The network's input.
            tensors: As for `Runner.infer`; each is taken when its turn comes.

        Yields:
            The values of 8-bit integers by their names in the graph, as the artifact stores them:
            uint8 or int8, in the graph's layout or flat; what the graph has as uint8 may be int8,
            128 less.

        Raises:
            MissingTool: What runs the artifact here is not installed.
            UserError: The artifact cannot be run on these.
        """
        ...
