"""External packages and programs that the project needs, and how to install them."""

import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

from tcc.compiler.support import user_folders

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "arm": ("apache-tvm", "apache-tvm-ffi", "capstone", "ziglang"),
    "import": ("onnx-graphsurgeon", "onnxsim"),
    "plot": ("matplotlib", "scikit-learn"),
    "sign": ("cryptography",),
    "slides": ("openslide-bin", "openslide-python", "scipy", "tifffile"),
    "sweep": ("distributed", "submitit"),
    "tensorboard": ("tensorboard",),
    "tflite": ("ai-edge-litert", "flatbuffers"),
    "train": ("torch",),
}
"""Packages by the extra that installs them; all others are installed by default."""
NPM_VERSIONS: Mapping[str, str] = {"onnxruntime-web": "1.30.0", "openseadragon": "6.0.2"}
"""npm packages that are fetched for HTML pages if npm is installed, with their versions."""
PROGRAMS: Mapping[str, str] = {
    "adb": "adb",
    "node": "nodejs",
    "npm": "npm",
    "qemu-aarch64": "qemu-user",
    "qemu-arm": "qemu-user",
    "ssh": "openssh-client",
}
"""Programs outside Python, and the Debian package of each."""


def describe_install(name: str) -> str:
    """Return the command that installs a package or program."""
    if name in PROGRAMS:
        return f"apt-get install {PROGRAMS[name]}"
    if name in NPM_VERSIONS:
        archive = f"the archive from `npm pack {name}@{NPM_VERSIONS[name]}`"
        return (
            f"apt-get install npm, or put {archive} into {user_folders.CACHE_DISPLAY_PATH}/{name}"
        )
    extra = next((extra for extra, names in EXTRAS.items() if name in names), "")
    return f"pip install 'tcc-compiler[{extra}]'" if extra else f"pip install {name}"


@dataclass(frozen=True, slots=True)
class Tool:
    """An external package or program that a step needs; `install` is the command to install it.

    `needed_for` completes "is needed to ..."; `version` is None if the tool is missing. If not
    `builds`, the tool only runs artifacts: builds do not need it, and their bytes are the same.
    """

    name: str
    needed_for: str
    version: str | None
    install: str = field(init=False)
    builds: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        """Look the command up, so that all messages about the tool agree."""
        object.__setattr__(self, "install", describe_install(self.name))


class MissingTool(Exception):  # noqa: N818 - it is the tool that is missing
    """A needed tool is missing; the command line exits with 3 and prints how to install it.

    `reason` is why fetching it failed, if that was tried.
    """

    def __init__(self, tool: Tool, reason: str = "") -> None:
        super().__init__(f"{tool.name} is needed to {tool.needed_for}; install it: {tool.install}")
        self.tool = tool
        self.reason = reason


_SEPARATORS = re.compile("[-_.]+")
_SUFFIX = ".dist-info"


def installed_version(name: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    normalized_name = _normalize_name(name)
    for folder in sys.path:
        if version := _list_installed(folder or os.curdir).get(normalized_name):
            return version
    # Packages installed in another way: as an archive, or without a folder of that name.
    from importlib import metadata

    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, FileNotFoundError):
        # FileNotFoundError: a folder without metadata where a newer importlib_metadata is loaded,
        # because it answers the standard library's queries.
        return None


@lru_cache(maxsize=64)
def _list_installed(folder: str) -> Mapping[str, str]:
    """Return the versions of a folder's packages by name."""
    try:
        file_names = os.listdir(folder)
    except OSError:
        return {}
    # In .dist-info names, neither the name nor the version contains a hyphen.
    name_parts = (
        file_name.removesuffix(_SUFFIX).split("-")
        for file_name in file_names
        if file_name.endswith(_SUFFIX)
    )
    return {_normalize_name(parts[0]): parts[1] for parts in name_parts if len(parts) == 2}


def _normalize_name(name: str) -> str:
    return _SEPARATORS.sub("-", name).lower()


PROVEN_RECORD = "proven_runtimes.toml"


@dataclass(frozen=True, slots=True)
class ProvenRelease:
    """A tested release of a runtime; `deviation` describes wrong results, empty if exact."""

    package: str
    version: str
    networks: tuple[str, ...]
    deviation: str

    @property
    def is_exact(self) -> bool:
        """Whether it computes the recorded outputs."""
        return not self.deviation


def load_proven_releases() -> tuple[ProvenRelease, ...]:
    """Return all tested releases."""
    text = (files("tcc.compiler.support") / PROVEN_RECORD).read_text()
    return tuple(
        ProvenRelease(package, version, tuple(record["networks"]), record["found"])
        for package, versions in tomllib.loads(text).items()
        for version, record in versions.items()
    )


def describe_unproven_releases(tools: Iterable[Tool]) -> Iterator[str]:
    """Yield a sentence for each tool whose release is not known to give bit-exact outputs."""
    all_releases = load_proven_releases()
    for tool in tools:
        releases_by_version = {
            release.version: release for release in all_releases if release.package == tool.name
        }
        if not releases_by_version or tool.version is None:
            continue
        proven_release = releases_by_version.get(tool.version)
        exact_versions = ", ".join(
            version for version, release in releases_by_version.items() if release.is_exact
        )
        if proven_release is None:
            yield (
                f"{tool.name} {tool.version} was not tested for exact outputs; tested releases: "
                f"{exact_versions}"
            )
        elif not proven_release.is_exact:
            yield (
                f"{tool.name} {tool.version} computes different outputs: "
                f"{proven_release.deviation}; exact releases: {exact_versions}"
            )
