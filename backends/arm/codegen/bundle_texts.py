"""What is around the library for whoever builds with it: a page to begin with, and samples."""

from collections.abc import Mapping
from importlib.resources import files

from tcc.backends.arm.codegen.network import Network
from tcc.backends.arm.machine import GLIBC, Machine
from tcc.compiler.version import __version__

FILES = {
    "README.txt": "README.txt",
    "sample.cpp": "sample.cpp",
    "model.pc": "{name}.pc",
    "model-config.cmake": "{name}-config.cmake",
}
"""Texts of `runtime/`, and what they are called beside a model."""

_SIGNED = """
                 starts only where @NAME@-run.sig is its signature by the key in @NAME@-run.pem"""


def texts(network: Network, machine: Machine, name: str, weights: int) -> dict[str, str]:
    """Return the texts by file name; `weights` is the bytes of constants."""
    folder = files("tcc.backends.arm") / "runtime"
    words = _words(network, machine, name, weights)
    return {
        to.format(name=name): _filled((folder / file).read_text("utf-8"), words)
        for file, to in FILES.items()
    }


def _words(network: Network, machine: Machine, name: str, weights: int) -> Mapping[str, str]:
    source, upper = network.program.graph.inputs[0], name.upper()
    given = f"    static {name}_input input[{upper}_INPUT_SIZE]; /* yours */"
    run = f"{name}_run(net, input, output);\n        if (status == {upper}_OK)\n"
    run += f"            status = {name}_decide(output, taken)"
    if source.preprocess is not None:
        _, height, width = source.type.shape
        size = f"{height} * {width} * 3"
        given = f"    static unsigned char rgb[{size}]; /* rows of an image */"
        run = f"{name}_predict(net, rgb, {width}, {height}, output, taken)"
    return {
        # First, as it has words of its own.
        "SIGNED": _SIGNED if machine.signer else "",
        "NAME": name,
        "UPPER": upper,
        "TARGET": machine.target.name,
        "VERSION": f"tcc {__version__}",
        "NUMBER": __version__,
        "GLIBC": GLIBC,
        "ARENA": f"{network.arena_size:,}",
        "WEIGHTS": f"{weights:,}",
        "INPUT": given,
        "RUN": run,
    }


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        # Not `format`: C, pkg-config and CMake have braces and dollars of their own.
        text = text.replace(f"@{word}@", value)
    return text
