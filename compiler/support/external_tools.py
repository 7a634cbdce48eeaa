"""What the project needs from outside and may not find."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tcc.compiler.support import user_cache

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
"""Packages by the extra of this one that brings them; all others come with it."""
FETCHED: Mapping[str, str] = {"onnxruntime-web": "1.30.0", "openseadragon": "6.0.2"}
"""Packages of npm that are fetched for pages where npm is, and the version of each."""
PROGRAMS: Mapping[str, str] = {
    "adb": "adb",
    "node": "nodejs",
    "npm": "npm",
    "qemu-aarch64": "qemu-user",
    "qemu-arm": "qemu-user",
    "ssh": "openssh-client",
}
"""Programs that are no Python, and the Debian package of each."""


def install(name: str) -> str:
    """Return the command that installs a package or program: the only place that knows it."""
    if name in PROGRAMS:
        return f"apt-get install {PROGRAMS[name]}"
    if name in FETCHED:
        archive = f"what `npm pack {name}@{FETCHED[name]}` brings"
        return f"apt-get install npm, or put {archive} into {user_cache.SHOWN}/{name}"
    extra = next((extra for extra, names in EXTRAS.items() if name in names), "")
    return f"pip install 'tcc-compiler[{extra}]'" if extra else f"pip install {name}"


@dataclass(frozen=True, slots=True)
class Tool:
    """Something outside the project that a step needs; `install` is the command that brings it.

    `needed_for` completes "is needed to ..."; `version` is None where the tool is missing. What
    does not `build` only runs artifacts here: building goes without it, to the same bytes.
    """

    name: str
    needed_for: str
    version: str | None
    install: str = field(init=False)
    builds: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        """Look the command up, so that everything that names the tool says the same."""
        object.__setattr__(self, "install", install(self.name))


class MissingTool(Exception):  # noqa: N818 - it is the tool that is missing
    """A needed tool is not here; the command line exits with 3 and prints how to install it.

    `why` says what was tried to get it, where something was.
    """

    def __init__(self, tool: Tool, why: str = "") -> None:
        super().__init__(f"{tool.name} is needed to {tool.needed_for}; install it: {tool.install}")
        self.tool = tool
        self.why = why
