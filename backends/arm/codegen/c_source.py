"""The C around the kernels: the header that users read, and the network as calls in order."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from tcc.backends.arm.codegen import c_names as names
from tcc.backends.arm.kernels.base import (
    Kernel,
    KernelArgument,
    KernelCall,
    KernelWeights,
    Scratch,
    Value,
)
from tcc.backends.arm.schedule.arena import ALIGNMENT, Arena
from tcc.backends.arm.schedule.program import INPUT, Copy, Program, ProgramStep, scratch
from tcc.compiler.ir import image_limits as limits
from tcc.compiler.ir.graph import Input, Output
from tcc.compiler.ir.types import DType, Shape

if TYPE_CHECKING:
    import numpy as np

RUNTIME = ("functions.h", "pool.h", "preprocess.h", "reader.h", "runner.c")
"""C sources that are the same for every model but for its name."""
PUBLIC = (
    "run", "preprocess", "activate", "classify", "set_threads", "threads", "message", "version",
    "outputs",
)  # fmt: skip
"""What the libraries export, each behind the model's name and an underscore."""
_SCALES = {"255": "BY_255", "max": "BY_MAX"}
_MODES = {"none": "KEEP", "stretch": "STRETCH", "cover": "COVER"}
MAX_THREADS = 16


def renamed(text: str, name: str) -> str:
    """Return a source of `runtime/`, which is written for a model called `model`, for another."""
    text = re.sub(r"\bMODEL_(?=\w)", f"{name.upper()}_", text)
    text = re.sub(r"\bmodel(?=_\w|-run\b|\.[ach]\b|\.so\b)", name, text)
    return re.sub(r"\blibmodel\b", f"lib{name}", text).replace("/* model:", f"/* {name}:")


def runtime(name: str) -> dict[str, str]:
    """Return the sources that are the same for every model, by file name."""
    folder = files("tcc.backends.arm") / "runtime"
    return {file: renamed((folder / file).read_text("utf-8"), name) for file in RUNTIME}


@dataclass
class WeightsBlob:
    """Constant tensors end to end, each aligned, each different one once."""

    data: bytearray = field(default_factory=bytearray)
    _known: dict[bytes, int] = field(default_factory=dict)

    def add(self, tensor: "np.ndarray") -> int:
        """Return the offset of a tensor's bytes, added if they are new."""
        raw = tensor.tobytes()
        digest = sha256(raw).digest()
        if digest not in self._known:
            self.data += bytes(-len(self.data) % ALIGNMENT)
            self._known[digest] = len(self.data)
            self.data += raw
        return self._known[digest]


@dataclass(frozen=True)
class Sources:
    """The texts that make a model's C, and the bytes of its weights."""

    header: str
    model: str
    weights: bytes


def sources(
    program: Program, arena: Arena, symbols: Mapping[Kernel, str], name: str, version: str
) -> Sources:
    """Return a model's C; `version` says who made it."""
    weights = WeightsBlob()
    body = "\n".join(
        [
            *_head(name),
            *_tables(program, version),
            *_contract(program.graph.inputs[0]),
            *_memory(program, arena),
            *_steps(program, arena, symbols, weights),
            "",
            '#include "functions.h"',
            "",
        ]
    )
    return Sources(_header(program, name), renamed(body, name), bytes(weights.data))


def _header(program: Program, name: str) -> str:
    folder = files("tcc.backends.arm") / "runtime"
    constants = "\n".join(_constants(program))
    text = (folder / "model.h").read_text("utf-8").replace("/* constants */", constants)
    return renamed(text, name)


def outputs(program: Program) -> tuple[tuple[Output, Shape, int], ...]:
    """Return the outputs with their shapes and their offsets in the output, in floats."""
    found, offset = [], 0
    for output in program.graph.outputs:
        kind = program.graph.types[output.value]
        found.append((output, kind.shape, offset))
        offset += kind.elements
    return tuple(found)


def _constants(program: Program) -> Iterator[str]:
    kind = program.graph.inputs[0].type
    axes = ", ".join(map(str, kind.shape))
    total = sum(program.graph.types[o.value].elements for o in program.graph.outputs)
    yield f"#define MODEL_INPUT_RANK {len(kind.shape)}"
    what = "channels, height, width" if len(kind.shape) == 3 else "features"
    yield f"#define MODEL_INPUT_SHAPE {{{axes}}} /* {what} */"
    yield f"#define MODEL_INPUT_SIZE {kind.elements} /* floats of the input */"
    yield f"#define MODEL_OUTPUT_COUNT {len(program.graph.outputs)}"
    yield f"#define MODEL_OUTPUT_SIZE {total} /* floats of all outputs together */"
    yield f"#define MODEL_MAX_THREADS {MAX_THREADS}"
    yield f"#define MODEL_MAX_SIDE {limits.MAX_SIDE} /* largest width or height of an image */"
    yield f"#define MODEL_MAX_PIXELS {limits.MAX_PIXELS} /* most pixels of an image */"
    yield f"#define MODEL_MAX_ROWS_BYTES {limits.MAX_ROWS_BYTES} /* most bytes a resize holds */"


def _head(name: str) -> Iterator[str]:
    yield "/* The network of model.h: its memory, its constants, and its kernels in order. */"
    yield '#include "model.h"'
    yield '#include "pool.h"'
    yield '#include "preprocess.h"'
    yield ""
    yield "#include <string.h>"
    yield ""
    yield "/* What the kernels call to run a loop on several threads. */"
    launch = f"{names.prefix(name)}ParallelLaunch"
    yield f"int (*{launch})(pool_body, void *, int) = pool_launch;"
    yield ""


def _tables(program: Program, version: str) -> Iterator[str]:
    rows = []
    for index, (output, shape, offset) in enumerate(outputs(program)):
        labels = "NULL"
        if output.labels:
            labels = f"labels_{index}"
            listed = ",\n    ".join(names.literal(label) for label in output.labels)
            yield f"static const char *const {labels}[] = {{\n    {listed},\n}};"
        size = program.graph.types[output.value].elements
        axes = ", ".join(map(str, shape))
        rows.append(
            f"    {{{names.literal(output.name)}, MODEL_{output.activation.upper()}, {len(shape)}, "
            f"{{{axes}}}, {offset}, {size}, {len(output.labels)}, {labels}}},"
        )
    yield "const model_output model_outputs[MODEL_OUTPUT_COUNT] = {"
    yield from rows
    yield "};"
    yield f"const char *model_version(void) {{ return {names.literal(version)}; }}"
    yield ""


def _contract(source: Input) -> Iterator[str]:
    pre = source.preprocess
    yield f"static const int takes_image = {int(pre is not None)};"
    yield f"static const char too_large[] = {names.literal(limits.TOO_LARGE)};"
    yield f"static const char too_costly[] = {names.literal(limits.TOO_COSTLY)};"
    if pre is None:
        yield "static const preprocess_contract contract = {0};"
        return
    channels, height, width = source.type.shape
    mode = _MODES[pre.resize.mode if pre.resize else "none"]
    size = pre.resize.size if pre.resize else (0, 0)
    yield "static const preprocess_contract contract = {"
    yield f"    .color = PREPROCESS_{pre.color.upper()}, .resize = PREPROCESS_{mode},"
    yield f"    .size = {{{size[0]}, {size[1]}}}, .crop = {int(pre.crop is not None)},"
    yield f"    .input = {{{channels}, {height}, {width}}},"
    yield f"    .scale = PREPROCESS_{'LEVELS' if pre.raw else _SCALES[pre.scale]},"
    yield f"    .mean = {{{_floats(pre.mean, channels)}}},"
    yield f"    .std = {{{_floats(pre.std, channels)}}},"
    yield "};"


def _floats(values: Sequence[float], count: int) -> str:
    """Return the float32 of each value, exactly, one for each channel."""
    from numpy import float32

    exact = [float(float32(v)).hex() for v in values]
    return ", ".join(f"{v}f" for v in (exact * count if len(exact) == 1 else exact))


def _memory(program: Program, arena: Arena) -> Iterator[str]:
    def at(value: str) -> int:
        place = program.places[value]
        return arena.offsets[place.buffer] + place.offset

    graph = program.graph
    ends = ", ".join(str(at(o.value)) for o in graph.outputs)
    yield ""
    yield f"static unsigned char arena[{arena.nbytes}] __attribute__((aligned({ALIGNMENT})));"
    source = graph.inputs[0]
    first = at(source.name) if source.type.dtype is DType.F32 else arena.offsets[INPUT]
    yield f"enum {{ INPUT_AT = {first} }};"
    yield f"static const size_t output_at[] = {{{ends}}};"
    yield "extern const unsigned char model_weights[];"
    yield "#define AT(offset) ((void *)(arena + (offset)))"
    yield "#define WEIGHTS(offset) ((const void *)(model_weights + (offset)))"
    yield ""


def _steps(
    program: Program, arena: Arena, symbols: Mapping[Kernel, str], weights: WeightsBlob
) -> Iterator[str]:
    declared: dict[str, str] = {}
    lines = []
    for step in program.steps:
        lines.append(f"    /* {names.comment(step.result)} */")
        lines.append(f"    {_statement(program, arena, symbols, weights, step)}")
        if isinstance(step, KernelCall):
            kinds = ["void *" if isinstance(a, Scratch) else "const void *" for a in step.arguments]
            symbol = symbols[step.kernel]
            declared[symbol] = f"int {symbol}({', '.join([*kinds, 'void *'])});"
    yield from declared.values()
    yield ""
    yield "/* Compute the outputs, all in the arena; 0 is success. */"
    yield "static int steps(void)"
    yield "{"
    yield from _narrowed(program, arena)
    yield from lines
    yield "    return 0;"
    yield "}"


def _narrowed(program: Program, arena: Arena) -> Iterator[str]:
    """Yield what makes levels of an input of floats."""
    source = program.graph.inputs[0]
    if source.type.dtype is DType.F32:
        return
    place = program.places[source.name]
    at = arena.offsets[place.buffer] + place.offset
    yield f"    for (size_t i = 0; i < {source.type.elements}; i++)"
    yield f"        arena[{at} + i] = (unsigned char)((float *)(arena + INPUT_AT))[i];"


def _statement(
    program: Program,
    arena: Arena,
    symbols: Mapping[Kernel, str],
    weights: WeightsBlob,
    step: ProgramStep,
) -> str:
    def at(value: str) -> str:
        place = program.places[value]
        return f"AT({arena.offsets[place.buffer] + place.offset})"

    def argument(call: KernelCall, index: int, given: KernelArgument) -> str:
        match given:
            case Value(value):
                return at(value)
            case KernelWeights(data):
                return f"WEIGHTS({weights.add(data)})"
            case Scratch():
                return f"AT({arena.offsets[scratch(call, index)]})"

    match step:
        case Copy(source, result, offset):
            size = program.graph.types[source].nbytes
            place = program.places[result]
            start = arena.offsets[place.buffer] + place.offset + offset
            return f"memcpy(AT({start}), {at(source)}, {size});"
        case KernelCall(kernel, arguments, result):
            given = [argument(step, i, a) for i, a in enumerate(arguments)]
            listed = ", ".join([*given, at(result)])
            return f"if ({symbols[kernel]}({listed})) return 1;"
