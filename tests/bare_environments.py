"""Environments that hold tcc's wheel and what one of its extras brings, and nothing else.

Their packages are links to those of this environment: exactly the files that each one's RECORD
names, of exactly what the extra requires, and what that requires in turn.
"""

import json
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SERVER = Path(__file__).with_name("command_server.py")


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How a command ended, and all that it printed."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class BareEnvironment:
    """An environment of its own, by its Python."""

    python: Path

    def run_all(
        self, lines: Sequence[Sequence[str]], folder: Path, variables: Mapping[str, str]
    ) -> list[CommandEnd]:
        """Run commands one after another in a folder, each in a process of its own."""
        done = subprocess.run(
            [self.python, "-P", SERVER],
            input="".join(f"{json.dumps(words)}\n" for words in lines),
            cwd=folder, env=variables, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [CommandEnd(**json.loads(line)) for line in done.stdout.splitlines()]


def create(place: Path, wheel: Path, extra: str = "") -> BareEnvironment:
    """Make an environment with tcc's wheel, and what it and one of its extras require."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    (about,) = site.glob("tcc_compiler-*.dist-info")
    present = _closure(_required(Distribution.at(about), extra)) - {"tcc-compiler"}
    for top, owners in _owners().items():
        if owners <= present:
            (site / top).symlink_to(_location() / top)
        elif owners & present:
            _link_files(site, top, owners & present)
    return BareEnvironment(place / "bin/python")


def _required(package: Distribution, extra: str) -> list[Requirement]:
    """Return what a package requires by itself, or with an extra."""
    listed = map(Requirement, package.requires or ())
    return [each for each in listed if not each.marker or each.marker.evaluate({"extra": extra})]


def _closure(waiting: list[Requirement]) -> set[str]:
    """Return the packages that requirements bring, by their canonical names."""
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for each in {(canonicalize_name(wanted.name), e) for e in ("", *wanted.extras)} - seen:
            seen.add(each)
            waiting += _required(distribution(each[0]), each[1])
    return {name for name, _ in seen}


def _location() -> Path:
    import numpy

    return Path(numpy.__file__).parents[1]


def _files(each: Distribution) -> Iterable[Path]:
    return (Path(file) for file in each.files or () if file.parts[0] != "..")


@cache
def _owners() -> Mapping[str, frozenset[str]]:
    """Return the distributions that own each file or folder of the packages' folder."""
    owners: dict[str, set[str]] = defaultdict(set)
    for each in distributions(path=[str(_location())]):
        for file in _files(each):
            owners[file.parts[0]].add(canonicalize_name(each.name))
    return {top: frozenset(names) for top, names in owners.items()}


def _link_files(site: Path, top: str, names: Iterable[str]) -> None:
    """Link the files of some of the distributions that share a folder."""
    for name in names:
        for file in _files(distribution(name)):
            if file.parts[0] == top:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                (site / file).symlink_to(_location() / file)
