"""Backends whose artifacts can be looked into: protocols beside those of `backend`."""

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


@runtime_checkable
class ValueReader(Protocol):
    """A backend whose artifacts of float32 can be looked into while they run here."""

    def inner_values(
        self, target: Target, folder: Path, source: Input, tensors: "Iterable[np.ndarray]"
    ) -> "Iterator[Mapping[str, np.ndarray]]":
        """Run the artifact in `folder` on tensors; yield the floats that it computes inside.

        Args:
            target: One of the backend's.
            folder: Where the artifact's files are.
            source: The network's input.
            tensors: As for `Runner.infer`; each is taken when its turn comes.

        Yields:
            float32 by the names of values in the graph, or of outputs, in the graph's layout or
            flat; other names are the artifact's own.

        Raises:
            MissingTool: What runs the artifact here is not installed.
            UserError: The artifact cannot be run on these.
        """
        ...
