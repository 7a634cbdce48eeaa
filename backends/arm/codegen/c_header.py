"""The header that users read, and the C sources that are the same for every model."""

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files

from tcc.backends.arm.codegen.network import Network, levels
from tcc.backends.arm.micro.cores import ISAS
from tcc.compiler.ir import image_limits as limits
from tcc.compiler.ir.types import DType

RUNTIME = (
    "decision.h", "functions.h", "pool.h", "preprocess.h", "reader.h", "report.h", "runner.c",
)  # fmt: skip
"""C sources that are the same for every model but for its name."""
MAX_THREADS = 16
_TYPES = {DType.F32: "float", DType.U8: "uint8_t", DType.I8: "int8_t"}


def renamed(text: str, name: str) -> str:
    """Return a source of `runtime/`, which is written for a model called `model`, for another."""
    # Sources are whole C, which editors and formatters read as it stands, and made a model's by
    # renaming.
    text = re.sub(r"\bMODEL_(?=\w)", f"{name.upper()}_", text)
    text = re.sub(r"\bmodel(?=_\w|-run\b|-operating-point\b|\.[ach]\b|\.so\b)", name, text)
    return re.sub(r"\blibmodel\b", f"lib{name}", text).replace("/* model:", f"/* {name}:")


def runtime(name: str, sections: frozenset[str]) -> dict[str, str]:
    """Return the sources that are the same for every model, by file name.

    Args:
        name: The model's.
        sections: What it has that not all have: see `Network.sections`.
    """
    folder = files("tcc.backends.arm") / "runtime"
    names = (*RUNTIME, *(("ed25519.h", "signature.h") if "SIGNER" in sections else ()))
    texts = {file: (folder / file).read_text("utf-8") for file in names}
    return {file: renamed(_chosen(text, sections), name) for file, text in texts.items()}


def _chosen(text: str, sections: frozenset[str]) -> str:
    """Return a text with what stands under `#ifdef`s of these sections, and without these lines."""
    # Not left to the compiler: who did not ask for counting has sources that know nothing of it.
    return _SECTION.sub(lambda found: found[2] if found[1] in sections else "", text)


def header(network: Network, create: str, weights: int) -> str:
    """Return the header for a model called `model`, with that many bytes of weights.

    `create` names model_create in programs.
    """
    text = (files("tcc.backends.arm") / "runtime" / "model.h").read_text("utf-8")
    text = _chosen(text, network.sections)
    text = text.replace("/* constants */", "\n".join(_constants(network, weights)))
    text = text.replace("/* create */", f"#define model_create {create}")
    own = _LEVELS if levels(network.program) else ""
    return text.replace("/* levels */\n", own)


_SECTION = re.compile(
    r"^#ifdef MODEL_(COUNTS|ISAS|SIGNER)\n(.*?)^#endif\n", re.MULTILINE | re.DOTALL
)
_LEVELS = """\
/* Run the network, as far as its outputs are 8-bit integers: model_run's without their scales.
 *
 * levels: MODEL_OUTPUT_SIZE integers; that times the output's scale, MODEL_SCALES, is the number.
 */
int model_run_levels(model_instance *instance, const model_input *input, model_level *levels);

"""


def _constants(network: Network, weights: int) -> Iterator[str]:
    program = network.program
    kind = program.graph.inputs[0].type
    axes = ", ".join(map(str, kind.shape))
    # Outputs stand end to end in one array: one size is all that a caller has to know.
    total = sum(program.graph.types[o.value].elements for o in program.graph.outputs)
    yield f"#define MODEL_ARENA_SIZE {network.arena_size} /* bytes of memory of an instance */"
    yield f"#define MODEL_ARENA_BOUND {network.arena.bound} /* of these, most of values at once */"
    yield f"#define MODEL_WEIGHTS_SIZE {weights} /* bytes of constants in the library */"
    yield f"#define MODEL_INPUT_RANK {len(kind.shape)}"
    what = "channels, height, width" if len(kind.shape) == 3 else "features"
    yield f"#define MODEL_INPUT_SHAPE {{{axes}}} /* {what} */"
    yield f"#define MODEL_INPUT_SIZE {kind.elements} /* elements of the input */"
    yield f"#define MODEL_OUTPUT_COUNT {len(program.graph.outputs)}"
    yield f"#define MODEL_OUTPUT_SIZE {total} /* floats of all outputs together */"
    yield f"#define MODEL_LAYER_COUNT {len(program.steps)}"
    yield f"#define MODEL_MAX_THREADS {MAX_THREADS}"
    if network.variants:
        listed = ", ".join(isa.name for isa in ISAS)
        yield f'#define MODEL_ISAS "{listed}" /* instructions that it has code for */'
    yield f"#define MODEL_MAX_SIDE {limits.MAX_SIDE} /* largest width or height of an image */"
    yield f"#define MODEL_MAX_PIXELS {limits.MAX_PIXELS} /* most pixels of an image */"
    yield f"#define MODEL_MAX_ROWS_BYTES {limits.MAX_ROWS_BYTES} /* most that a resize reads */"
    yield ""
    yield "/* An element of the input. */"
    yield f"typedef {_TYPES[kind.dtype]} model_input;"
    if found := levels(program):
        values, dtype = found
        yield "/* An element of the output as an 8-bit integer, and what it is worth in each. */"
        yield f"typedef {_TYPES[dtype]} model_level;"
        scales = [program.graph.types[v].scale or 0.0 for v in values]
        # Exactly, so that a caller who multiplies gets the floats that model_run gives.
        yield f"#define MODEL_SCALES {{{floats(scales, len(scales))}}}"


MAX_NAME = 64


def identifier(name: str) -> str:
    """Return a C identifier like a model's name, which begins all that is exported."""
    clean = re.sub(r"\W", "_", name, flags=re.ASCII)[:MAX_NAME]
    return clean if re.match(r"[A-Za-z]", clean) else f"net_{clean.lstrip('_')}"


def literal(text: str) -> str:
    """Return text as a C string literal, in UTF-8, with nothing left to interpret."""
    # Three octal digits end an escape for certain, and `?` may begin a trigraph.
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    escaped = (chr(b) if b in plain else f"\\{b:03o}" for b in text.encode())
    return f'"{"".join(escaped)}"'


def comment(text: str) -> str:
    """Return text as it may stand in a C comment."""
    # What could end a comment, or begin another, is left out whatever the user's word.
    return re.sub(r"[^\w ,.:;/+()=-]", "_", text[:200], flags=re.ASCII).replace("*/", "* /")


def floats(values: Sequence[float], count: int) -> str:
    """Return the float32 of `count` values, exactly, as C; a single value stands for all."""
    from numpy import float32

    # Hexadecimal digits are not rounded by any compiler.
    exact = [float(float32(v)).hex() for v in values]
    return ", ".join(f"{v}f" for v in (exact * count if len(exact) == 1 else exact))
