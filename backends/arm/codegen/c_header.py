"""The header that users read, and the C sources that are the same for every model."""

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files

from tcc.backends.arm.codegen.network import Network, find_quantized_outputs
from tcc.backends.arm.micro.cores import ISAS
from tcc.compiler.ir import image_limits as limits
from tcc.compiler.ir.types import DType

RUNTIME_FILES = (
    "decision.h", "functions.h", "pool.h", "preprocess.h", "reader.h", "report.h", "runner.c",
)  # fmt: skip
"""C sources that are the same for every model but for its name."""
MAX_THREADS = 16
_TYPES = {DType.F32: "float", DType.U8: "uint8_t", DType.I8: "int8_t"}


def rename_model(text: str, name: str) -> str:
    """Return a source of `runtime/`, which is written for a model called `model`, for another."""
    # Sources are whole C, which editors and formatters read as it stands, and made a model's by
    # renaming.
    text = re.sub(r"\bMODEL_(?=\w)", f"{name.upper()}_", text)
    text = re.sub(r"\bmodel(?=_\w|-run\b|-operating-point\b|\.[ach]\b|\.so\b)", name, text)
    return re.sub(r"\blibmodel\b", f"lib{name}", text).replace("/* model:", f"/* {name}:")


def load_runtime_sources(name: str, sections: frozenset[str]) -> dict[str, str]:
    """Return the sources that are the same for every model, by file name.

    Args:
        name: The model's.
        sections: What it has that not all have: see `Network.sections`.
    """
    folder = files("tcc.backends.arm") / "runtime"
    names = (*RUNTIME_FILES, *(("ed25519.h", "signature.h") if "SIGNER" in sections else ()))
    texts = {file: (folder / file).read_text("utf-8") for file in names}
    return {
        file: rename_model(_select_sections(text, sections), name) for file, text in texts.items()
    }


def _select_sections(text: str, sections: frozenset[str]) -> str:
    """Return a text with what stands under `#ifdef`s of these sections, and without these lines."""
    # Not left to the compiler: who did not ask for counting has sources that know nothing of it.
    return _SECTION.sub(lambda section: section[2] if section[1] in sections else "", text)


def render_header(network: Network, create: str, weights: int) -> str:
    """Return the header for a model called `model`, with that many bytes of weights.

    `create` names model_create in programs.
    """
    text = (files("tcc.backends.arm") / "runtime" / "model.h").read_text("utf-8")
    text = _select_sections(text, network.sections)
    text = text.replace("/* constants */", "\n".join(_render_constants(network, weights)))
    text = text.replace("/* create */", f"#define model_create {create}")
    declaration = _RUN_LEVELS_DECLARATION if find_quantized_outputs(network.program) else ""
    return text.replace("/* levels */\n", declaration)


_SECTION = re.compile(
    r"^#ifdef MODEL_(COUNTS|ISAS|SIGNER)\n(.*?)^#endif\n", re.MULTILINE | re.DOTALL
)
_RUN_LEVELS_DECLARATION = """\
/* Run the network, as far as its outputs are 8-bit integers: model_run's without their scales.
 *
 * levels: MODEL_OUTPUT_SIZE integers; that times the output's scale, MODEL_SCALES, is the number.
 */
int model_run_levels(model_instance *instance, const model_input *input, model_level *levels);

"""


def _render_constants(network: Network, weights: int) -> Iterator[str]:
    program = network.program
    kind = program.graph.inputs[0].type
    axes = ", ".join(map(str, kind.shape))
    # Outputs stand end to end in one array: one size is all that a caller has to know.
    total = sum(program.graph.types[o.value].elements for o in program.graph.outputs)
    yield f"#define MODEL_ARENA_SIZE {network.arena_size} /* bytes of memory of an instance */"
    yield f"#define MODEL_ARENA_BOUND {network.arena.bound} /* of these, most of values at once */"
    yield f"#define MODEL_WEIGHTS_SIZE {weights} /* bytes of constants in the library */"
    yield f"#define MODEL_INPUT_RANK {len(kind.shape)}"
    axis_names = "channels, height, width" if len(kind.shape) == 3 else "features"
    yield f"#define MODEL_INPUT_SHAPE {{{axes}}} /* {axis_names} */"
    yield f"#define MODEL_INPUT_SIZE {kind.elements} /* elements of the input */"
    yield f"#define MODEL_OUTPUT_COUNT {len(program.graph.outputs)}"
    yield f"#define MODEL_OUTPUT_SIZE {total} /* floats of all outputs together */"
    yield f"#define MODEL_LAYER_COUNT {len(program.steps)}"
    yield f"#define MODEL_MAX_THREADS {MAX_THREADS}"
    if network.has_isa_variants:
        isa_names = ", ".join(isa.name for isa in ISAS)
        yield f'#define MODEL_ISAS "{isa_names}" /* instructions that it has code for */'
    yield f"#define MODEL_MAX_SIDE {limits.MAX_SIDE} /* largest width or height of an image */"
    yield f"#define MODEL_MAX_PIXELS {limits.MAX_PIXELS} /* most pixels of an image */"
    yield f"#define MODEL_MAX_ROWS_BYTES {limits.MAX_ROWS_BYTES} /* most that a resize reads */"
    yield ""
    yield "/* An element of the input. */"
    yield f"typedef {_TYPES[kind.dtype]} model_input;"
    if quantized := find_quantized_outputs(program):
        quantized_names, dtype = quantized
        yield "/* An element of the output as an 8-bit integer, and what it is worth in each. */"
        yield f"typedef {_TYPES[dtype]} model_level;"
        scales = [program.graph.types[v].scale or 0.0 for v in quantized_names]
        # Exactly, so that a caller who multiplies gets the floats that model_run gives.
        yield f"#define MODEL_SCALES {{{format_floats(scales, len(scales))}}}"


MAX_NAME = 64


def to_identifier(name: str) -> str:
    """Return a C identifier like a model's name, which begins all that is exported."""
    valid_name = re.sub(r"\W", "_", name, flags=re.ASCII)[:MAX_NAME]
    return valid_name if re.match(r"[A-Za-z]", valid_name) else f"net_{valid_name.lstrip('_')}"


def to_string_literal(text: str) -> str:
    """Return text as a C string literal, in UTF-8, with nothing left to interpret."""
    # Three octal digits end an escape for certain, and `?` may begin a trigraph.
    printable_bytes = set(range(0x20, 0x7F)) - set(b'"\\?')
    escaped = (chr(b) if b in printable_bytes else f"\\{b:03o}" for b in text.encode())
    return f'"{"".join(escaped)}"'


def to_comment(text: str) -> str:
    """Return text as it may stand in a C comment."""
    # What could end a comment, or begin another, is left out whatever the user's word.
    return re.sub(r"[^\w ,.:;/+()=-]", "_", text[:200], flags=re.ASCII).replace("*/", "* /")


def format_floats(numbers: Sequence[float], count: int) -> str:
    """Return the float32 of `count` values, exactly, as C; a single value stands for all."""
    from numpy import float32

    # Hexadecimal digits are not rounded by any compiler.
    hex_numbers = [float(float32(v)).hex() for v in numbers]
    return ", ".join(
        f"{v}f" for v in (hex_numbers * count if len(hex_numbers) == 1 else hex_numbers)
    )
