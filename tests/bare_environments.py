"""Environments that contain only the tcc wheel and the packages of one extra.

Packages are links to the current environment. Only files in the RECORD of each package are linked.
The packages are those that the extra requires, directly or indirectly.
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
    """Exit code and output of a command."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class BareEnvironment:
    """A separate environment, given by its Python."""

    python: Path

    def run_all(
        self, lines: Sequence[Sequence[str]], folder: Path, variables: Mapping[str, str]
    ) -> list[CommandEnd]:
        """Run commands one after another in a folder, each in a new process."""
        completed = subprocess.run(
            [self.python, "-P", SERVER],
            input="".join(f"{json.dumps(command)}\n" for command in lines),
            cwd=folder, env=variables, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [CommandEnd(**json.loads(line)) for line in completed.stdout.splitlines()]


def create(folder: Path, wheel: Path, extra: str = "") -> BareEnvironment:
    """Create an environment with the tcc wheel and the requirements of tcc and one extra."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    (metadata_folder,) = site.glob("tcc_compiler-*.dist-info")
    present = _resolve_packages(_list_requirements(Distribution.at(metadata_folder), extra)) - {
        "tcc-compiler"
    }
    for top, owners in _map_owners().items():
        if owners <= present:
            (site / top).symlink_to(_find_site_packages() / top)
        elif owners & present:
            _link_files(site, top, owners & present)
    return BareEnvironment(folder / "bin/python")


def _list_requirements(package: Distribution, extra: str) -> list[Requirement]:
    """Return the requirements of a package, without or with an extra."""
    requirements = map(Requirement, package.requires or ())
    return [
        requirement
        for requirement in requirements
        if not requirement.marker or requirement.marker.evaluate({"extra": extra})
    ]


def _resolve_packages(waiting: list[Requirement]) -> set[str]:
    """Return all packages that requirements need, by canonical name."""
    visited: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        for package in {
            (canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)
        } - visited:
            visited.add(package)
            waiting += _list_requirements(distribution(package[0]), package[1])
    return {name for name, _ in visited}


def _find_site_packages() -> Path:
    import numpy

    return Path(numpy.__file__).parents[1]


def _list_files(package: Distribution) -> Iterable[Path]:
    return (Path(file) for file in package.files or () if file.parts[0] != "..")


@cache
def _map_owners() -> Mapping[str, frozenset[str]]:
    """Return the distributions that own each file or folder in site-packages."""
    owners: dict[str, set[str]] = defaultdict(set)
    for package in distributions(path=[str(_find_site_packages())]):
        for file in _list_files(package):
            owners[file.parts[0]].add(canonicalize_name(package.name))
    return {top: frozenset(names) for top, names in owners.items()}


def _link_files(site: Path, top: str, names: Iterable[str]) -> None:
    """Link the files of some distributions that share a folder."""
    for name in names:
        for file in _list_files(distribution(name)):
            if file.parts[0] == top:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                (site / file).symlink_to(_find_site_packages() / file)
