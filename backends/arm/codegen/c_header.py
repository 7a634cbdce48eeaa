"""The public C header of a model, and the C sources shared by all models."""

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
"""C sources that differ between models only by the model's name."""
MAX_THREADS = 16
_TYPES = {DType.F32: "float", DType.U8: "uint8_t", DType.I8: "int8_t"}


def rename_model(text: str, name: str) -> str:
    """Rename the model `model` in a source of `runtime/`."""
    # The sources are complete C, so editors and formatters can read them. Renaming adapts them.
    text = re.sub(r"\bMODEL_(?=\w)", f"{name.upper()}_", text)
    text = re.sub(r"\bmodel(?=_\w|-run\b|-operating-point\b|\.[ach]\b|\.so\b)", name, text)
    return re.sub(r"\blibmodel\b", f"lib{name}", text).replace("/* model:", f"/* {name}:")


def load_runtime_sources(name: str, sections: frozenset[str]) -> dict[str, str]:
    """Return the sources shared by all models, by file name.

    Args:
        name: The model's name.
        sections: The model's optional sections: see `Network.sections`.
    """
    folder = files("tcc.backends.arm") / "runtime"
    names = (*RUNTIME_FILES, *(("ed25519.h", "signature.h") if "SIGNER" in sections else ()))
    names += ("guard.h",) if "GUARD" in sections else ()
    texts = {file: (folder / file).read_text("utf-8") for file in names}
    return {
        file: rename_model(_select_sections(text, sections), name) for file, text in texts.items()
    }


def _select_sections(text: str, sections: frozenset[str]) -> str:
    """Resolve the `#ifdef`s of optional sections: keep the text of these, drop the others."""
    # The compiler could do this, but sources without an option should not mention it.
    return _SECTION.sub(lambda section: section[2] if section[1] in sections else "", text)


def render_header(network: Network, create: str, weights: int) -> str:
    """Return the header of a model called `model`; `weights` is the size of its constants.

    `create` is the symbol behind model_create.
    """
    text = (files("tcc.backends.arm") / "runtime" / "model.h").read_text("utf-8")
    text = _select_sections(text, network.sections)
    text = text.replace("/* constants */", "\n".join(_render_constants(network, weights)))
    text = text.replace("/* create */", f"#define model_create {create}")
    declaration = _RUN_LEVELS_DECLARATION if find_quantized_outputs(network.program) else ""
    return text.replace("/* levels */\n", declaration)


_SECTION = re.compile(
    r"^#ifdef MODEL_(COUNTS|GUARD|ISAS|SIGNER)\n(.*?)^#endif\n", re.MULTILINE | re.DOTALL
)
_RUN_LEVELS_DECLARATION = """\
/* Run the network up to its 8-bit outputs: like model_run, but without dequantizing them.
 *
 * levels: MODEL_OUTPUT_SIZE quantized values. Multiply each by its output's scale in MODEL_SCALES.
 */
int model_run_levels(model_instance *instance, const model_input *input, model_level *levels);

"""


def _render_constants(network: Network, weights: int) -> Iterator[str]:
    program = network.program
    kind = program.graph.inputs[0].type
    axes = ", ".join(map(str, kind.shape))
    # All outputs are in one array, so a caller needs only one size.
    total = sum(program.graph.types[o.value].elements for o in program.graph.outputs)
    yield f"#define MODEL_ARENA_SIZE {network.arena_size} /* bytes of memory per instance */"
    yield f"#define MODEL_ARENA_BOUND {network.arena.bound} /* peak bytes of live values */"
    yield f"#define MODEL_WEIGHTS_SIZE {weights} /* bytes of constants in the library */"
    yield f"#define MODEL_INPUT_RANK {len(kind.shape)}"
    axis_names = "channels, height, width" if len(kind.shape) == 3 else "features"
    yield f"#define MODEL_INPUT_SHAPE {{{axes}}} /* {axis_names} */"
    yield f"#define MODEL_INPUT_SIZE {kind.elements} /* elements of the input */"
    yield f"#define MODEL_OUTPUT_COUNT {len(program.graph.outputs)}"
    yield f"#define MODEL_OUTPUT_SIZE {total} /* floats of all outputs */"
    yield f"#define MODEL_LAYER_COUNT {len(program.steps)}"
    yield f"#define MODEL_MAX_THREADS {MAX_THREADS}"
    if network.has_isa_variants:
        isa_names = ", ".join(isa.name for isa in ISAS)
        yield f'#define MODEL_ISAS "{isa_names}" /* instruction sets with their own code */'
    yield f"#define MODEL_MAX_SIDE {limits.MAX_SIDE} /* largest width or height of an image */"
    yield f"#define MODEL_MAX_PIXELS {limits.MAX_PIXELS} /* largest number of pixels of an image */"
    yield f"#define MODEL_MAX_ROWS_BYTES {limits.MAX_ROWS_BYTES} /* largest input of a resize */"
    yield ""
    yield "/* An element of the input. */"
    yield f"typedef {_TYPES[kind.dtype]} model_input;"
    if quantized := find_quantized_outputs(program):
        quantized_names, dtype = quantized
        yield "/* A quantized output value, and the scale of each output. */"
        yield f"typedef {_TYPES[dtype]} model_level;"
        scales = [program.graph.types[v].scale or 0.0 for v in quantized_names]
        # Exact digits: a caller who multiplies gets the same floats as from model_run.
        yield f"#define MODEL_SCALES {{{format_floats(scales, len(scales))}}}"


MAX_NAME = 64


def to_identifier(name: str) -> str:
    """Return a C identifier from a model's name; it is the prefix of all exported names."""
    valid_name = re.sub(r"\W", "_", name, flags=re.ASCII)[:MAX_NAME]
    return valid_name if re.match(r"[A-Za-z]", valid_name) else f"net_{valid_name.lstrip('_')}"


def to_string_literal(text: str) -> str:
    """Return text as a C string literal in UTF-8, with all special characters escaped."""
    # Octal escapes end after three digits. `?` is escaped because it can begin a trigraph.
    printable_bytes = set(range(0x20, 0x7F)) - set(b'"\\?')
    escaped = (chr(b) if b in printable_bytes else f"\\{b:03o}" for b in text.encode())
    return f'"{"".join(escaped)}"'


def to_comment(text: str) -> str:
    """Return text that is safe inside a C comment."""
    # Names come from users: remove everything that could end a comment or start another.
    return re.sub(r"[^\w ,.:;/+()=-]", "_", text[:200], flags=re.ASCII).replace("*/", "* /")


def format_floats(numbers: Sequence[float], count: int) -> str:
    """Return `count` float32 values as exact C literals; a single value is repeated."""
    from numpy import float32

    # Compilers do not round hexadecimal digits.
    hex_numbers = [float(float32(v)).hex() for v in numbers]
    return ", ".join(
        f"{v}f" for v in (hex_numbers * count if len(hex_numbers) == 1 else hex_numbers)
    )
