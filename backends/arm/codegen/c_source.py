"""Generates the C around the kernels: calls in order, on the memory of an instance."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from tcc.backends.arm.codegen import c_header, guard_tables, operating_point
from tcc.backends.arm.codegen.c_header import format_floats, to_comment, to_string_literal
from tcc.backends.arm.codegen.network import (
    COUNTS_BUFFER,
    INSTANCE_BYTES,
    Network,
    find_quantized_outputs,
    locate_outputs,
)
from tcc.backends.arm.kernels.base import (
    KernelArgument,
    KernelCall,
    KernelWeights,
    Scratch,
    Value,
    get_dtype,
)
from tcc.backends.arm.schedule.arena import ALIGNMENT, SCRATCH_BUFFER, create_input_scratch
from tcc.backends.arm.schedule.program import Copy, Program, ProgramStep, get_scratch_name
from tcc.compiler.ir import image_limits as limits
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.types import DType

if TYPE_CHECKING:
    import numpy as np

FUNCTIONS = (
    "create", "destroy", "run", "preprocess", "activate", "classify", "decide", "predict",
    "has_thresholds", "set_threads", "threads", "watch", "message", "version",
)  # fmt: skip
COUNTER_FUNCTIONS = ("layer_saturation", "reset_saturation")
"""Functions of an instrumented library, which counts saturated values."""
ISA_FUNCTIONS = ("set_isa", "isa")
"""Functions of a library that chooses among instruction sets."""
_SATURATION_KINDS = {DType.I8: "SIGNED_SATURATION", DType.U8: "UNSIGNED_SATURATION"}
TABLES = ("outputs", "layers")
"""Tables that the libraries export. As for `FUNCTIONS`, each name has the model's prefix."""
_SCALES = {"255": "BY_255", "max": "BY_MAX"}
_MODES = {"none": "KEEP", "stretch": "STRETCH", "cover": "COVER"}


@dataclass
class WeightsBlob:
    """Constant tensors in one buffer, each aligned; equal tensors are stored once."""

    content: bytearray = field(default_factory=bytearray)
    _offsets: dict[bytes, int] = field(default_factory=dict)

    def add(self, tensor: "np.ndarray") -> int:
        """Return the offset of a tensor's bytes, and append them if they are new."""
        raw = tensor.tobytes()
        # Digests as keys: otherwise all weights would be in memory twice.
        digest = sha256(raw).digest()
        if digest not in self._offsets:
            # Each tensor is aligned for vector loads.
            self.content += bytes(-len(self.content) % ALIGNMENT)
            self._offsets[digest] = len(self.content)
            self.content += raw
        return self._offsets[digest]


@dataclass(frozen=True)
class Sources:
    """The generated C of a model, the bytes of its weights, and the exported names."""

    header: str
    model: str
    weights: bytes
    exports: tuple[str, ...]
    sections: frozenset[str] = frozenset()
    signer: bytes | None = None
    """The public key with which the program checks its signature, if it does."""


def generate_sources(network: Network, name: str, version: str) -> Sources:
    """Return a model's C, with its name as prefix; `version` is the text of model_version."""
    program, weights = network.program, WeightsBlob()
    steps = list(_generate_steps(network, weights))
    text = "\n".join(
        [
            *_generate_head(),
            *_generate_tables(program, version),
            *_generate_contract(program.graph.inputs[0]),
            *_generate_memory(network),
            *_generate_layers(network),
            *(guard_tables.generate_guard(network) if network.guard else ()),
            *steps,
            "",
            '#include "functions.h"',
            "",
        ]
    )
    # The digest of code and weights is part of the symbol behind `create`: a header and a library
    # of different builds do not link (docs/decisions/0018-instances.md).
    create = f"model_create_{sha256(text.encode() + weights.content).hexdigest()[:12]}"
    text = text.replace("/* create */", f"#define MODEL_CREATE {create}")
    text = text.replace("/* mark */", to_string_literal(operating_point.build_mark(create)))
    text = text.replace("/* guard mark */", to_string_literal(guard_tables.build_mark(create)))
    function_names = [
        *FUNCTIONS,
        *TABLES,
        *(["run_levels"] if find_quantized_outputs(program) else ()),
    ]
    function_names += COUNTER_FUNCTIONS if network.is_instrumented else ()
    function_names += guard_tables.FUNCTIONS if network.guard else ()
    function_names += ISA_FUNCTIONS if network.has_isa_variants else ()
    exports = (
        *(f"{name}_{function_name}" for function_name in function_names),
        c_header.rename_model(create, name),
    )
    return Sources(
        c_header.rename_model(c_header.render_header(network, create, len(weights.content)), name),
        c_header.rename_model(text, name),
        bytes(weights.content),
        exports,
        network.sections,
    )


def _generate_head() -> Iterator[str]:
    yield "/* The network of model.h: its memory, its constants, and its kernels in order. */"
    yield '#include "model.h"'
    yield '#include "pool.h"'
    yield '#include "preprocess.h"'
    yield ""
    yield "#include <string.h>"
    yield ""
    yield "/* The symbol behind model_create: see model.h. */"
    yield "/* create */"
    yield "/* The kernels call this to run a loop on several threads. */"
    # TVM's kernels call TVM's runtime through this pointer. Here it points to the pool, which has
    # the same signature.
    yield "int (*__TVMBackendParallelLaunch)(pool_body, void *, int) = pool_launch;"
    yield ""


def _generate_tables(program: Program, version: str) -> Iterator[str]:
    rows = []
    for index, (output, shape, offset) in enumerate(locate_outputs(program)):
        labels = "NULL"
        if output.labels:
            labels = f"labels_{index}"
            label_literals = ",\n    ".join(to_string_literal(label) for label in output.labels)
            yield f"static const char *const {labels}[] = {{\n    {label_literals},\n}};"
        size = program.graph.types[output.value].elements
        axes = ", ".join(map(str, shape))
        rows.append(
            f"    {{{to_string_literal(output.name)}, MODEL_{output.activation.upper()}, "
            f"{len(shape)}, "
            f"{{{axes}}}, {offset}, {size}, {len(output.labels)}, {labels}, "
            f"MODEL_{output.meaning.upper()}}},"
        )
    yield "const model_output model_outputs[MODEL_OUTPUT_COUNT] = {"
    yield from rows
    yield "};"
    yield f"const char *model_version(void) {{ return {to_string_literal(version)}; }}"
    yield ""
    yield "/* Fitted values: `tcc eval --fit` writes them here, in the libraries and the program."
    yield " * volatile: no compiler may use the initial values as constants. */"
    initial_values = ", ".join(
        f"{number!r}" for number in operating_point.build_unfitted_records(program)
    )
    count = len(operating_point.build_unfitted_records(program))
    yield f"static const volatile struct {{ char mark[32]; double values[{count}]; }} fitted = {{"
    yield f"    /* mark */, {{{initial_values}}},"
    yield "};"
    yield ""


def _generate_contract(network_input: Input) -> Iterator[str]:
    preprocess = network_input.preprocess
    yield f"static const int takes_image = {int(preprocess is not None)};"
    yield f"static const char too_large[] = {to_string_literal(limits.TOO_LARGE)};"
    yield f"static const char too_costly[] = {to_string_literal(limits.TOO_COSTLY)};"
    if preprocess is None:
        yield "static const preprocess_contract contract = {0};"
        return
    channels, height, width = network_input.type.shape
    mode = _MODES[preprocess.resize.mode if preprocess.resize else "none"]
    size = preprocess.resize.size if preprocess.resize else (0, 0)
    scale = "LEVELS" if preprocess.raw else _SCALES[preprocess.scale]
    yield "static const preprocess_contract contract = {"
    yield f"    .color = PREPROCESS_{preprocess.color.upper()}, .resize = PREPROCESS_{mode},"
    yield f"    .size = {{{size[0]}, {size[1]}}}, .crop = {int(preprocess.crop is not None)},"
    yield f"    .input = {{{channels}, {height}, {width}}},"
    yield f"    .scale = PREPROCESS_{scale}, .bytes = {int(network_input.type.dtype is DType.U8)},"
    yield f"    .mean = {{{format_floats(preprocess.mean, channels)}}},"
    yield f"    .std = {{{format_floats(preprocess.std, channels)}}},"
    yield "};"


def _generate_memory(network: Network) -> Iterator[str]:
    graph, arena = network.program.graph, network.arena
    network_input = graph.inputs[0]
    output_offsets = ", ".join(str(network.get_offset(o.value)) for o in graph.outputs)
    scratch = create_input_scratch(network_input)
    yield ""
    yield f"#define FLOAT_INPUT {int(network_input.type.dtype is DType.F32)}"
    yield f"enum {{ ALIGNMENT = {ALIGNMENT}, INSTANCE_SIZE = {INSTANCE_BYTES} }};"
    yield "/* Offsets of values in an instance's memory. */"
    yield f"enum {{ INPUT_AT = {network.get_offset(network_input.name)} }};"
    at = arena.offsets[SCRATCH_BUFFER]
    yield f"enum {{ SCRATCH_AT = {at}, SCRATCH_SIZE = {scratch.nbytes} }};"
    yield f"static const size_t output_at[] = {{{output_offsets}}};"
    if quantized := find_quantized_outputs(network.program):
        quantized_offsets = ", ".join(
            str(network.get_offset(quantized_name)) for quantized_name in quantized[0]
        )
        yield "#define MODEL_LEVELS"
        yield f"static const size_t levels_at[] = {{{quantized_offsets}}};"
    yield "extern const unsigned char model_weights[];"
    yield "#define AT(offset) ((void *)(values + (offset)))"
    yield "#define WEIGHTS(offset) ((const void *)(model_weights + (offset)))"
    yield ""


def _generate_layers(network: Network) -> Iterator[str]:
    """Yield the tables that describe the output of each step."""
    types, steps = network.program.graph.types, network.program.steps
    yield "const model_layer model_layers[MODEL_LAYER_COUNT + 1] = {"
    for step in steps:
        kernel_name = step.kernel.name if isinstance(step, KernelCall) else "copy"
        kind = types[step.output]
        literals = ", ".join(map(to_string_literal, (step.output, kernel_name, get_dtype(kind))))
        yield f"    {{{literals}, {kind.nbytes}}},"
        # A last row without a name ends the table; C has no empty arrays.
    yield "    {NULL, NULL, NULL, 0},"
    yield "};"
    layer_offsets = ", ".join([*(str(network.get_offset(step.output)) for step in steps), "0"])
    yield f"static const size_t layer_at[] = {{{layer_offsets}}};"
    if network.is_instrumented:
        yield from _generate_counts(network)
    yield ""


def _generate_counts(network: Network) -> Iterator[str]:
    """Yield where saturated values are counted, and for which layers: those with kernels."""
    types, steps = network.program.graph.types, network.program.steps
    saturation_kinds = [
        _SATURATION_KINDS.get(types[step.output].dtype, "0")
        if isinstance(step, KernelCall)
        else "0"
        for step in steps
    ]
    yield f"enum {{ COUNTS_AT = {network.arena.offsets[COUNTS_BUFFER]} }};"
    yield "enum { UNSIGNED_SATURATION = 1, SIGNED_SATURATION = 2 };"
    kinds = ", ".join([*saturation_kinds, "0"])
    yield f"static const unsigned char saturation_kinds[] = {{{kinds}}};"
    largest_bytes = [
        str(types[step.output].limits[1]) if kind != "0" else "0"
        for step, kind in zip(steps, saturation_kinds, strict=True)
    ]
    values = ", ".join([*largest_bytes, "0"])
    yield f"static const unsigned char largest_levels[] = {{{values}}};"


def _generate_steps(network: Network, weights: WeightsBlob) -> Iterator[str]:
    declared: dict[str, str] = {}
    lines = []
    for number, step in enumerate(network.program.steps):
        lines.append(f"    /* {to_comment(step.output)} */")
        # Plain calls in order: a reviewer reads the network from top to bottom, and the device
        # interprets no table.
        lines.append(f"    {_generate_statement(network, weights, step)}")
        lines.append(f"    notify_watcher(instance, {number});")
        if isinstance(step, KernelCall):
            kinds = ["void *" if isinstance(a, Scratch) else "const void *" for a in step.arguments]
            symbol = network.symbols[step.kernel]
            declared[symbol] = f"int {symbol}({', '.join([*kinds, 'void *'])});"
    yield from declared.values()
    yield ""
    yield "static void notify_watcher(const model_instance *instance, int layer);"
    yield ""
    yield "/* Compute all values, including the outputs; returns 0 on success. */"
    yield "static int steps(const model_instance *instance, unsigned char *values)"
    yield "{"
    yield from lines
    yield "    return 0;"
    yield "}"


def _generate_statement(network: Network, weights: WeightsBlob, step: ProgramStep) -> str:
    def render_argument(call: KernelCall, index: int, kernel_argument: KernelArgument) -> str:
        match kernel_argument:
            case Value(value_name):
                return f"AT({network.get_offset(value_name)})"
            case KernelWeights(tensor):
                return f"WEIGHTS({weights.add(tensor)})"
            case Scratch():
                return f"AT({network.arena.offsets[get_scratch_name(call, index)]})"

    match step:
        case Copy(source, output, offset):
            size = network.program.graph.types[source].nbytes
            start = network.get_offset(output) + offset
            return f"memcpy(AT({start}), AT({network.get_offset(source)}), {size});"
        case KernelCall(kernel, arguments, output):
            rendered_arguments = [render_argument(step, i, a) for i, a in enumerate(arguments)]
            argument_list = ", ".join([*rendered_arguments, f"AT({network.get_offset(output)})"])
            return f"if ({network.symbols[kernel]}({argument_list})) return 1;"
