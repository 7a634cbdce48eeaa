"""The C around the kernels: the network as calls in order, on the memory of an instance."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from tcc.backends.arm.codegen import c_header, operating_point
from tcc.backends.arm.codegen.c_header import comment, floats, literal
from tcc.backends.arm.codegen.network import COUNTS, INSTANCE, Network, levels, outputs
from tcc.backends.arm.kernels.base import KernelArgument, KernelCall, KernelWeights, Scratch, Value
from tcc.backends.arm.schedule.arena import ALIGNMENT, SCRATCH, input_scratch
from tcc.backends.arm.schedule.program import Copy, Program, ProgramStep, scratch
from tcc.compiler.ir import image_limits as limits
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.types import DType

if TYPE_CHECKING:
    import numpy as np

FUNCTIONS = (
    "create", "destroy", "run", "preprocess", "activate", "classify", "decide", "predict",
    "has_thresholds", "set_threads", "threads", "watch", "message", "version",
)  # fmt: skip
COUNTERS = ("layer_saturation", "reset_saturation")
"""The same of a library that counts."""
CHOOSERS = ("set_isa", "isa")
"""The same of one that chooses among instruction sets."""
_ENDS = {DType.I8: "SIGNED_ENDS", DType.U8: "UNSIGNED_ENDS"}
TABLES = ("outputs", "layers")
"""What the libraries export, with `FUNCTIONS`, each behind the model's name and an underscore."""
_SCALES = {"255": "BY_255", "max": "BY_MAX"}
_MODES = {"none": "KEEP", "stretch": "STRETCH", "cover": "COVER"}


@dataclass
class WeightsBlob:
    """Constant tensors end to end, each aligned, each different one once."""

    data: bytearray = field(default_factory=bytearray)
    _known: dict[bytes, int] = field(default_factory=dict)

    def add(self, tensor: "np.ndarray") -> int:
        """Return the offset of a tensor's bytes, added if they are new."""
        raw = tensor.tobytes()
        # By their digests, or all weights would be held twice.
        digest = sha256(raw).digest()
        if digest not in self._known:
            # Each tensor starts where vectors may be loaded aligned.
            self.data += bytes(-len(self.data) % ALIGNMENT)
            self._known[digest] = len(self.data)
            self.data += raw
        return self._known[digest]


@dataclass(frozen=True)
class Sources:
    """The texts that make a model's C, the bytes of its weights, and what the libraries show."""

    header: str
    model: str
    weights: bytes
    exports: tuple[str, ...]
    sections: frozenset[str] = frozenset()
    signer: bytes | None = None
    """The public key by which the program's signature is checked, if it checks one."""


def sources(network: Network, name: str, version: str) -> Sources:
    """Return a model's C, behind a name; `version` says who made it."""
    program, weights = network.program, WeightsBlob()
    steps = list(_steps(network, weights))
    text = "\n".join(
        [
            *_head(),
            *_tables(program, version),
            *_contract(program.graph.inputs[0]),
            *_memory(network),
            *_layers(network),
            *steps,
            "",
            '#include "functions.h"',
            "",
        ]
    )
    # Code and weights: the header's `create` names this digest, so that a header and a library of
    # two builds do not link (docs/decisions/0018-instances.md).
    create = f"model_create_{sha256(text.encode() + weights.data).hexdigest()[:12]}"
    text = text.replace("/* create */", f"#define MODEL_CREATE {create}")
    text = text.replace("/* mark */", literal(operating_point.mark(create)))
    words = [*FUNCTIONS, *TABLES, *(["run_levels"] if levels(program) else ())]
    words += COUNTERS if network.counted else ()
    words += CHOOSERS if network.variants else ()
    exports = (*(f"{name}_{word}" for word in words), c_header.renamed(create, name))
    return Sources(
        c_header.renamed(c_header.header(network, create, len(weights.data)), name),
        c_header.renamed(text, name),
        bytes(weights.data),
        exports,
        network.sections,
    )


def _head() -> Iterator[str]:
    yield "/* The network of model.h: its memory, its constants, and its kernels in order. */"
    yield '#include "model.h"'
    yield '#include "pool.h"'
    yield '#include "preprocess.h"'
    yield ""
    yield "#include <string.h>"
    yield ""
    yield "/* What model_create stands for: see model.h. */"
    yield "/* create */"
    yield "/* What the kernels call to run a loop on several threads. */"
    # TVM's kernels call their runtime through this pointer; there is no runtime, and the pool has
    # the same signature.
    yield "int (*__TVMBackendParallelLaunch)(pool_body, void *, int) = pool_launch;"
    yield ""


def _tables(program: Program, version: str) -> Iterator[str]:
    rows = []
    for index, (output, shape, offset) in enumerate(outputs(program)):
        labels = "NULL"
        if output.labels:
            labels = f"labels_{index}"
            listed = ",\n    ".join(literal(label) for label in output.labels)
            yield f"static const char *const {labels}[] = {{\n    {listed},\n}};"
        size = program.graph.types[output.value].elements
        axes = ", ".join(map(str, shape))
        rows.append(
            f"    {{{literal(output.name)}, MODEL_{output.activation.upper()}, {len(shape)}, "
            f"{{{axes}}}, {offset}, {size}, {len(output.labels)}, {labels}, "
            f"MODEL_{output.meaning.upper()}}},"
        )
    yield "const model_output model_outputs[MODEL_OUTPUT_COUNT] = {"
    yield from rows
    yield "};"
    yield f"const char *model_version(void) {{ return {literal(version)}; }}"
    yield ""
    yield "/* What is fitted: `tcc eval --fit` writes it here, in the libraries and the program."
    yield " * It is volatile so that no compiler computes with what stands here. */"
    values = ", ".join(f"{number!r}" for number in operating_point.unfitted(program))
    count = len(operating_point.unfitted(program))
    yield f"static const volatile struct {{ char mark[32]; double values[{count}]; }} fitted = {{"
    yield f"    /* mark */, {{{values}}},"
    yield "};"
    yield ""


def _contract(source: Input) -> Iterator[str]:
    pre = source.preprocess
    yield f"static const int takes_image = {int(pre is not None)};"
    yield f"static const char too_large[] = {literal(limits.TOO_LARGE)};"
    yield f"static const char too_costly[] = {literal(limits.TOO_COSTLY)};"
    if pre is None:
        yield "static const preprocess_contract contract = {0};"
        return
    channels, height, width = source.type.shape
    mode = _MODES[pre.resize.mode if pre.resize else "none"]
    size = pre.resize.size if pre.resize else (0, 0)
    scale = "LEVELS" if pre.raw else _SCALES[pre.scale]
    yield "static const preprocess_contract contract = {"
    yield f"    .color = PREPROCESS_{pre.color.upper()}, .resize = PREPROCESS_{mode},"
    yield f"    .size = {{{size[0]}, {size[1]}}}, .crop = {int(pre.crop is not None)},"
    yield f"    .input = {{{channels}, {height}, {width}}},"
    yield f"    .scale = PREPROCESS_{scale}, .bytes = {int(source.type.dtype is DType.U8)},"
    yield f"    .mean = {{{floats(pre.mean, channels)}}},"
    yield f"    .std = {{{floats(pre.std, channels)}}},"
    yield "};"


def _memory(network: Network) -> Iterator[str]:
    graph, arena = network.program.graph, network.arena
    source = graph.inputs[0]
    ends = ", ".join(str(network.at(o.value)) for o in graph.outputs)
    scratch = input_scratch(source)
    yield ""
    yield f"#define FLOAT_INPUT {int(source.type.dtype is DType.F32)}"
    yield f"enum {{ ALIGNMENT = {ALIGNMENT}, INSTANCE_SIZE = {INSTANCE} }};"
    yield "/* Offsets of values in an instance's memory. */"
    yield f"enum {{ INPUT_AT = {network.at(source.name)} }};"
    at = arena.offsets[SCRATCH]
    yield f"enum {{ SCRATCH_AT = {at}, SCRATCH_SIZE = {scratch.nbytes} }};"
    yield f"static const size_t output_at[] = {{{ends}}};"
    if found := levels(network.program):
        values = ", ".join(str(network.at(value)) for value in found[0])
        yield "#define MODEL_LEVELS"
        yield f"static const size_t levels_at[] = {{{values}}};"
    yield "extern const unsigned char model_weights[];"
    yield "#define AT(offset) ((void *)(values + (offset)))"
    yield "#define WEIGHTS(offset) ((const void *)(model_weights + (offset)))"
    yield ""


def _layers(network: Network) -> Iterator[str]:
    """Yield the tables of what each step computes."""
    types, steps = network.program.graph.types, network.program.steps
    yield "const model_layer model_layers[MODEL_LAYER_COUNT + 1] = {"
    for step in steps:
        word = step.kernel.word if isinstance(step, KernelCall) else "copy"
        kind = types[step.result]
        words = ", ".join(map(literal, (step.result, word, kind.dtype.value)))
        yield f"    {{{words}, {kind.nbytes}}},"
    # A last row without a name, by which C walks a table; C has no empty ones.
    yield "    {NULL, NULL, NULL, 0},"
    yield "};"
    listed = ", ".join([*(str(network.at(step.result)) for step in steps), "0"])
    yield f"static const size_t layer_at[] = {{{listed}}};"
    if network.counted:
        yield from _counts(network)
    yield ""


def _counts(network: Network) -> Iterator[str]:
    """Yield where levels are counted, and of which layers: those that kernels compute."""
    types, steps = network.program.graph.types, network.program.steps
    ends = [
        _ENDS.get(types[step.result].dtype, "0") if isinstance(step, KernelCall) else "0"
        for step in steps
    ]
    yield f"enum {{ COUNTS_AT = {network.arena.offsets[COUNTS]} }};"
    yield "enum { UNSIGNED_ENDS = 1, SIGNED_ENDS = 2 };"
    yield f"static const unsigned char layer_ends[] = {{{', '.join([*ends, '0'])}}};"


def _steps(network: Network, weights: WeightsBlob) -> Iterator[str]:
    declared: dict[str, str] = {}
    lines = []
    for number, step in enumerate(network.program.steps):
        lines.append(f"    /* {comment(step.result)} */")
        # One straight line of calls: a reviewer reads the network from top to bottom, and no table
        # is interpreted on the device.
        lines.append(f"    {_statement(network, weights, step)}")
        lines.append(f"    tell(instance, {number});")
        if isinstance(step, KernelCall):
            kinds = ["void *" if isinstance(a, Scratch) else "const void *" for a in step.arguments]
            symbol = network.symbols[step.kernel]
            declared[symbol] = f"int {symbol}({', '.join([*kinds, 'void *'])});"
    yield from declared.values()
    yield ""
    yield "static void tell(const model_instance *instance, int layer);"
    yield ""
    yield "/* Compute the outputs, all among the values; 0 is success. */"
    yield "static int steps(const model_instance *instance, unsigned char *values)"
    yield "{"
    yield from lines
    yield "    return 0;"
    yield "}"


def _statement(network: Network, weights: WeightsBlob, step: ProgramStep) -> str:
    def argument(call: KernelCall, index: int, given: KernelArgument) -> str:
        match given:
            case Value(value):
                return f"AT({network.at(value)})"
            case KernelWeights(data):
                return f"WEIGHTS({weights.add(data)})"
            case Scratch():
                return f"AT({network.arena.offsets[scratch(call, index)]})"

    match step:
        case Copy(source, result, offset):
            size = network.program.graph.types[source].nbytes
            start = network.at(result) + offset
            return f"memcpy(AT({start}), AT({network.at(source)}), {size});"
        case KernelCall(kernel, arguments, result):
            given = [argument(step, i, a) for i, a in enumerate(arguments)]
            listed = ", ".join([*given, f"AT({network.at(result)})"])
            return f"if ({network.symbols[kernel]}({listed})) return 1;"
