"""Targets from other distributions, declared as entry points of the group `tcc.targets`.

An entry point names a backend object, like those in `BACKENDS` (`compiler/ir/backend.py`):

    [project.entry-points."tcc.targets"]
    dot = "tcc_dot:DOT"
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from tcc.compiler.ir.backend import INTERFACE_VERSION, Backend, Builder, Packager, Runner
from tcc.compiler.ir.target import Target

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "tcc.targets"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution, such as `tcc-dot` `1.0`."""

    name: str
    version: str

    def __str__(self) -> str:
        """Return name and version."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class InstalledBackend:
    """A backend and the distribution that provides it."""

    backend: Backend
    distribution: Distribution


@dataclass(frozen=True, slots=True)
class UnusableBackend:
    """An entry point without a usable backend, and the reason."""

    name: str
    distribution: Distribution
    reason: str


class UnusableBackendError(Exception):
    """Why an object is not a usable backend."""


@cache
def load_installed(
    reserved: frozenset[str],
) -> tuple[tuple[InstalledBackend, ...], tuple[UnusableBackend, ...]]:
    """Return the backends that entry points name, and the unusable entry points.

    Sorted by distribution and entry point, so that of two backends with the same target name the
    same one is always refused. `reserved` are names and aliases that are already in use.
    """
    from importlib.metadata import entry_points

    usable: list[InstalledBackend] = []
    unusable: list[UnusableBackend] = []
    names = set(reserved)
    points = [(_get_distribution(point), point) for point in entry_points(group=ENTRY_POINT_GROUP)]
    for distribution, point in sorted(points, key=lambda pair: (pair[0].name, pair[1].name)):
        try:
            backend = _load(point)
            names |= check_interface(backend, names)
        except UnusableBackendError as error:
            unusable.append(UnusableBackend(point.name, distribution, str(error)))
        else:
            usable.append(InstalledBackend(backend, distribution))
    return tuple(usable), tuple(unusable)


def _get_distribution(point: "EntryPoint") -> Distribution:
    if point.dist is None:
        return Distribution(point.module, "unknown")
    return Distribution(point.dist.name, point.dist.version)


def _load(point: "EntryPoint") -> Backend:
    try:
        backend: Backend = point.load()
    except Exception as error:  # third-party code may raise any exception
        raise UnusableBackendError(f"{point.value} cannot be loaded: {error!r}"[:300]) from error
    interface_version = getattr(backend, "interface", None)
    if interface_version != INTERFACE_VERSION:
        mismatch = (
            "has no `interface` attribute"
            if interface_version is None
            else f"is for interface {interface_version!r}"
        )
        raise UnusableBackendError(
            f"{point.value} {mismatch}, but this tcc has interface {INTERFACE_VERSION}: "
            f"install a release of {_get_distribution(point).name} with `interface = "
            f"{INTERFACE_VERSION}`"
        )
    return backend


def check_interface(backend: Backend, reserved: Collection[str]) -> set[str]:
    """Return the names and aliases of a backend's targets, after checking the interface.

    Args:
        backend: The object that an entry point names.
        reserved: Names of other targets.

    Raises:
        UnusableBackendError: A name is invalid or already in use, or a target does not match the
            backend's methods; its text is the reason.
    """
    targets = getattr(backend, "targets", None)
    if not isinstance(targets, tuple) or not all(isinstance(target, Target) for target in targets):
        raise UnusableBackendError("its `targets` is not a tuple of Target objects")
    names: set[str] = set()
    for target in backend.targets:
        for name in (target.name, *target.aliases):
            if not _NAME.fullmatch(name):
                reason = f"`{name[:40]}` is not a valid target name: use a-z, 0-9, _ and -"
                raise UnusableBackendError(reason)
            if name in reserved or name in names:
                raise UnusableBackendError(f"the name `{name}` is already used by another target")
            names.add(name)
        if bool(target.precisions) != isinstance(backend, Builder | Packager):
            reason = (
                f"`{target.name}` needs both precisions and `emit` (or `build_package`), or neither"
            )
            raise UnusableBackendError(reason)
        if target.runs != isinstance(backend, Runner):
            reason = f"`{target.name}` needs both `runs=True` and the method `infer`, or neither"
            raise UnusableBackendError(reason)
    return names
