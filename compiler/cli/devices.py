"""The targets of all backends, as the pipeline and the commands take them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.backends import BACKENDS
from tcc.backends.base import Artifact, Backend, Refusal, Target
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    Span,
    UserError,
    fail,
    nearest,
    whole_file,
)
from tcc.compiler.support.external_tools import Tool

if TYPE_CHECKING:
    import numpy as np

    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.ir.graph import Graph, Model, Pass
    from tcc.compiler.ir.number_types import Numbers
    from tcc.compiler.support.progress import Progress

    Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Bound:
    """A target with the backend that builds and runs it."""

    backend: Backend
    target: Target

    @property
    def name(self) -> str:
        """The target's name, as after `--target`."""
        return self.target.name

    @property
    def real_ends(self) -> bool:
        """Whether the target's integer programs may end in real numbers."""
        return self.target.real_ends

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What building for the target, and running it here, needs."""
        return self.backend.tools(self.target)

    def passes(self, precision: str) -> "tuple[Pass, ...]":
        """Return the passes that the model goes through before it is emitted."""
        return self.backend.passes(precision)

    def refusals(self, graph: "Graph") -> Iterator[Refusal]:
        """Yield each node that the target cannot run."""
        return self.backend.refusals(self.target, graph)

    def emit(self, model: "Model", precision: str, progress: "Progress") -> Artifact:
        """Return the target's files."""

        def of_this_target(what: str, done: int, total: int) -> None:
            name = self.name if what == self.name else f"{self.name}: {what}"
            progress(name, done, total)

        return self.backend.emit(self.target, model, precision, of_this_target)

    def run(self, bundle: "Bundle", images: "Sequence[np.ndarray]") -> "list[Outputs]":
        """Run a bundle's artifact on images, uint8 (height, width, 3); return raw outputs."""
        return self.backend.run(self.target, bundle.model, bundle.input, images)

    def infer(self, bundle: "Bundle", tensors: "Sequence[np.ndarray]") -> "list[Outputs]":
        """Run a bundle's artifact on preprocessed tensors; return raw outputs."""
        return self.backend.infer(self.target, bundle.model, bundle.input, tensors)

    def numbers(self, bundle: "Bundle") -> "Numbers | None":
        """Return what a bundle's artifact computes with, None where its file does not say it."""
        return self.backend.numbers(self.target, bundle.model)

    def versions(self) -> Mapping[str, str]:
        """Return the versions of what decides the files' bytes."""
        from importlib.metadata import version

        from tcc.compiler.version import __version__

        common = {name: version(name) for name in ("numpy", "onnx", "onnxruntime")}
        own = {t.name: t.version for t in self.tools if t.builds and t.version}
        return {"tcc": __version__, **common, **own}

    def missing(self) -> tuple[Tool, ...]:
        """Return the tools that building needs and that are not here."""
        return tuple(tool for tool in self.tools if tool.builds and tool.version is None)

    def absent(self) -> tuple[Tool, ...]:
        """Return the tools that running the artifact here needs and that are not here."""
        return tuple(tool for tool in self.tools if not tool.builds and tool.version is None)


def every() -> tuple[Bound, ...]:
    """Return every target there is, in the order of the backends."""
    return tuple(Bound(backend, target) for backend in BACKENDS for target in backend.targets)


def find(name: str, at: Span) -> Bound:
    """Return the target of a name or alias.

    Raises:
        UserError: There is none (E0605); the nearest is named.
    """
    bound = every()
    by_name = {alias: b for b in bound for alias in (b.target.name, *b.target.aliases)}
    if name in by_name:
        return by_name[name]
    close = nearest(name, set(by_name))
    known = f"known targets: {', '.join(b.name for b in bound)}"
    help = f"did you mean `{close}`? {known}" if close else known
    raise fail("E0605", f"there is no target `{name[:80]}`", at, help=help)


def load(folder: Path) -> "tuple[Bundle, Bound]":
    """Return the bundle in a folder, checked, and the target that runs it.

    Raises:
        UserError: It is no whole bundle, or of a target (E0605) or precision (E0606) unknown.
    """
    from tcc.compiler.bundle import bundle_folder

    found = bundle_folder.read(folder)
    at = whole_file(str(folder / "manifest.json"))
    bound = find(found.manifest.target, at)
    if problems := tuple(_unfit(bound, found.manifest.precision, at)):
        raise UserError(problems)
    return found, bound


def calibrated_for(names: Sequence[tuple[str, Span]]) -> Bound:
    """Return the first target of names that is calibrated for.

    Raises:
        UserError: A name is not known (E0605), or none has integers (E0606).
    """
    found = [find(name, at) for name, at in names]
    for bound in found:
        if bound.target.calibrates:
            return bound
    known = [bound.name for bound in every() if bound.target.calibrates]
    message = f"{found[0].name} has no integers to calibrate in this version"
    raise fail("E0606", message, names[0][1], help=f"targets that have: {', '.join(known)}")


def find_all(names: Sequence[tuple[str, Span]], precision: tuple[str, Span]) -> tuple[Bound, ...]:
    """Return the targets of names, each once, all of which build at a precision.

    Raises:
        UserError: Some are not known (E0605) or do not build at it (E0606); all are listed.
    """
    found: dict[str, Bound] = {}
    problems: list[Diagnostic] = []
    for name, at in names:
        try:
            bound = find(name, at)
        except UserError as error:
            problems += error.diagnostics
            continue
        found[bound.name] = bound
        if not bound.target.precisions:
            message = f"this version calibrates for {bound.name}, but does not build it"
            help = f"`tcc calibrate --target {bound.name}` works"
            problems.append(Diagnostic("E0606", message, at, help=help))
        else:
            problems += _unfit(bound, *precision)
    if problems:
        raise UserError(tuple(problems))
    return tuple(found.values())


def _unfit(bound: Bound, precision: str, at: Span) -> Iterator[Diagnostic]:
    offered = bound.target.precisions
    if precision not in offered:
        close = nearest(precision, set(offered))
        known = f"it builds at {', '.join(offered)}"
        help = f"did you mean `{close}`? {known}" if close else known
        message = f"{bound.name} does not build at precision `{precision[:40]}`"
        yield Diagnostic("E0606", message, at, help=help)
