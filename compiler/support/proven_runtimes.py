"""Which releases of runtimes were shown to compute what was recorded.

The record, `proven_runtimes.toml`, is written by `tools/prove_runtimes.py`.
"""

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files

from tcc.compiler.support.external_tools import Tool

RECORD = "proven_runtimes.toml"


@dataclass(frozen=True, slots=True)
class ProvenRelease:
    """A release of a runtime; `found` is what it computed otherwise, nothing if it is right."""

    package: str
    version: str
    networks: tuple[str, ...]
    found: str

    @property
    def holds(self) -> bool:
        """Whether it computes what was recorded."""
        return not self.found


def releases() -> tuple[ProvenRelease, ...]:
    """Return all releases of the record."""
    text = (files("tcc.compiler.support") / RECORD).read_text()
    return tuple(
        ProvenRelease(package, version, tuple(one["networks"]), one["found"])
        for package, versions in tomllib.loads(text).items()
        for version, one in versions.items()
    )


def notes(tools: Iterable[Tool]) -> Iterator[str]:
    """Yield a sentence for each tool whose release is not known to be right."""
    known = releases()
    for tool in tools:
        own = {one.version: one for one in known if one.package == tool.name}
        if not own or tool.version is None:
            continue
        found = own.get(tool.version)
        right = ", ".join(version for version, one in own.items() if one.holds)
        if found is None:
            yield f"{tool.name} {tool.version} is not among the releases that were proven: {right}"
        elif not found.holds:
            yield f"{tool.name} {tool.version} computes otherwise: {found.found}; proven: {right}"
