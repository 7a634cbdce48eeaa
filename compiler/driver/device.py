"""What a target is to whoever builds for it."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from tcc.compiler.ir.graph import Graph, Model, Node, Pass
from tcc.compiler.support.progress import Progress


class Refused(Protocol):
    """A node that a target cannot run: the rule it breaks, and what would fit."""

    @property
    def node(self) -> Node: ...  # noqa: D102
    @property
    def why(self) -> str: ...  # noqa: D102
    @property
    def help(self) -> str: ...  # noqa: D102


class Emitted(Protocol):
    """A target's files by relative path, and which of them are programs."""

    @property
    def files(self) -> Mapping[str, bytes]: ...  # noqa: D102
    @property
    def executable(self) -> frozenset[str]: ...  # noqa: D102


class Device(Protocol):
    """One target, as whoever runs the pipeline passes it in."""

    @property
    def name(self) -> str:
        """The target's name, as after `--target`."""
        ...

    @property
    def real_ends(self) -> bool:
        """Whether its integer programs may end in sums that are real numbers at once."""
        ...

    def passes(self, precision: str) -> tuple[Pass, ...]:
        """Return the passes that the model goes through before it is emitted."""
        ...

    def refusals(self, graph: Graph) -> Iterable[Refused]:
        """Yield each node that the target cannot run."""
        ...

    def emit(self, model: Model, precision: str, progress: Progress) -> Emitted:
        """Return the target's files; at an integer precision the model is the integer program."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Return the versions of what decides the files' bytes."""
        ...
