"""Compiles a model to an artifact."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files

from tcc.backends.arm.codegen import c_header, c_source, guard_tables, link, micro_objects, objects
from tcc.backends.arm.codegen.c_source import Sources
from tcc.backends.arm.codegen.network import (
    COUNT_BYTES,
    COUNTS_BUFFER,
    GUARD_RING,
    GUARD_SUMS,
    Network,
    find_quantized_outputs,
)
from tcc.backends.arm.codegen.zig import ZigError
from tcc.backends.arm.kernels.base import KernelCall
from tcc.backends.arm.machine import GLIBC, Machine
from tcc.backends.arm.schedule import limits
from tcc.backends.arm.schedule.arena import Buffer, create_input_scratch, plan
from tcc.backends.arm.schedule.program import Copy, ProgramStep, build_program, compute_buffers
from tcc.compiler.guard.guard_document import Guard
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.target import Artifact, Memory
from tcc.compiler.passes.drop_train_only import drop_train_only
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.progress import Progress, silent
from tcc.compiler.version import __version__


class BuildError(Exception):
    """A supported model does not build: a defect of tcc."""


@dataclass(frozen=True)
class CompiledModel:
    """A model's C and the object files of its kernels, with its name."""

    name: str
    network: Network
    sources: Sources
    objects: Mapping[str, bytes]

    @property
    def memory(self) -> Memory:
        """The memory that the model needs."""
        arena = self.network.arena
        return Memory(self.network.arena_size, arena.bound, len(self.sources.weights))


def compile_sources(
    machine: Machine,
    model: Model,
    progress: Progress = silent,
    *,
    is_instrumented: bool = False,
    guard: Guard | None = None,
) -> CompiledModel:
    """Return a model's C and compiled kernels.

    Args:
        machine: The target machine.
        model: A model without `refusals`.
        progress: Called for each kernel.
        is_instrumented: Whether the library counts saturated values.
        guard: The guard to compile, if any.

    Raises:
        UserError: The model needs more memory than a program on the machine can have (E0654), or
            its kernels merge the layer of the guard with others (E0744).
        BuildError: TVM fails; the message has the node.
        ZigError: A micro-kernel does not compile.
    """
    # Again after the chosen passes: otherwise kernels of training-only outputs would be compiled.
    model = drop_train_only(model)
    name = c_header.to_identifier(model.graph.name)
    steps = build_program(model.graph, model.weights, machine, progress)
    # One function per kernel: layers that differ only in weights share it. The prefix allows two
    # networks in one program.
    symbols = {k: f"{name}_k{i}_{k.name}" for i, k in enumerate(steps.kernels)}
    try:
        kernels = objects.compile_kernels({s: k for k, s in symbols.items()}, machine, progress)
    except objects.CodegenError as error:
        # TVM reports a symbol; report the line of the spec too.
        node = next(n for k, n in steps.kernels.items() if symbols[k] == error.symbol)
        at = next(n.at for n in model.graph.nodes if n.name == node)
        raise BuildError(
            f"{machine.target.name}: no kernel for `{node}` ({at}): {error}"
        ) from error
    quantized_outputs = find_quantized_outputs(steps)
    used = compute_buffers(steps, quantized_outputs[0] if quantized_outputs else ())
    # Counts accumulate over runs and are read afterwards: they live through all steps.
    last_step = len(steps.steps) + 1
    count_buffers = [
        Buffer(COUNTS_BUFFER, COUNT_BYTES * len(steps.steps), 0, last_step, is_scratch=True)
    ]
    scratch = create_input_scratch(steps.graph.inputs[0])
    guard_buffers = _create_guard_buffers(guard, last_step) if guard else ()
    arena = plan((*used, scratch, *(count_buffers if is_instrumented else ()), *guard_buffers))
    # Not a refusal: the memory is known only after values have offsets.
    limits.check_memory(machine.target.name, model.graph, arena.nbytes)
    network = Network(steps, arena, symbols, is_instrumented, machine.has_isa_variants, guard)
    if not guard_tables.has_tap(network):
        message = f"{machine.target.name} merges the layer of the guard with another"
        help = "build this target without --guard-data"
        raise fail("E0744", message, make_file_span(model.graph.name), help=help)
    sources = c_source.generate_sources(network, name, f"tcc {__version__}, {machine.target.name}")
    object_files = {"kernels.o": kernels, **micro_objects.compile_kernels(steps.kernels, machine)}
    return CompiledModel(name, network, sources, object_files)


def _create_guard_buffers(guard: Guard, last_step: int) -> tuple[Buffer, ...]:
    # The sums are read after the run; the rows are needed only before the first layer.
    return (
        Buffer(GUARD_SUMS, guard_tables.count_sum_bytes(guard), 0, last_step, is_scratch=True),
        Buffer(GUARD_RING, guard_tables.count_ring_bytes(guard), 0, 0, is_scratch=True),
    )


def emit(
    machine: Machine,
    model: Model,
    progress: Progress = silent,
    *,
    is_instrumented: bool = False,
    guard: Guard | None = None,
) -> Artifact:
    """Return the artifact of a model for a machine; arguments as for `compile_sources`.

    Raises:
        UserError: The model needs more memory than a program on the machine can have (E0654).
        BuildError: TVM or zig fails; the message has the node.
    """
    try:
        compiled_model = compile_sources(
            machine, model, progress, is_instrumented=is_instrumented, guard=guard
        )
        sources = replace(compiled_model.sources, signer=machine.signer)
        built = link.link_artifact(
            sources, compiled_model.objects, machine, compiled_model.name, progress
        )
    except ZigError as error:
        raise BuildError(f"{machine.target.name}: {model.graph.name}: {error}") from error
    texts = _render_texts(
        compiled_model.network, machine, compiled_model.name, compiled_model.memory.weights
    )
    files = {path: text.encode() for path, text in texts.items()}
    layers = {step.output: describe_step(step) for step in compiled_model.network.program.steps}
    return Artifact(
        {**files, **built.files}, built.executable, memory=compiled_model.memory, layers=layers
    )


def describe_step(step: ProgramStep) -> str:
    """Return the name of a step's kernel and micro-kernels, for reports."""
    match step:
        case KernelCall(kernel, _, _):
            micro_names = ", ".join(micro_kernel.name for micro_kernel in kernel.micro_kernels)
            return f"{kernel.name} in {micro_names}" if micro_names else kernel.name
        case Copy():
            return "copy"


TEMPLATE_FILES = {
    "README.txt": "README.txt",
    "sample.cpp": "sample.cpp",
    "model.pc": "{name}.pc",
    "model-config.cmake": "{name}-config.cmake",
}
"""Templates in `runtime/`, and their file names in an artifact."""

_SIGNED = """
                 starts only with a valid @NAME@-run.sig by the key in @NAME@-run.pem"""


def _render_texts(
    network: Network, machine: Machine, name: str, constant_bytes: int
) -> dict[str, str]:
    """Return the rendered templates by file name."""
    folder = files("tcc.backends.arm") / "runtime"
    substitutions = _build_substitutions(network, machine, name, constant_bytes)
    return {
        to.format(name=name): _fill_template((folder / file).read_text("utf-8"), substitutions)
        for file, to in TEMPLATE_FILES.items()
    }


def _build_substitutions(
    network: Network, machine: Machine, name: str, constant_bytes: int
) -> Mapping[str, str]:
    """Return the text for each placeholder of the templates; `name` is the C prefix."""
    network_input, upper = network.program.graph.inputs[0], name.upper()
    input_declaration = f"    static {name}_input input[{upper}_INPUT_SIZE]; /* yours */"
    run_call = f"{name}_run(net, input, output);\n        if (status == {upper}_OK)\n"
    run_call += f"            status = {name}_decide(output, decisions)"
    if network_input.preprocess is not None:
        _, height, width = network_input.type.shape
        size = f"{height} * {width} * 3"
        input_declaration = f"    static unsigned char rgb[{size}]; /* rows of an image */"
        run_call = f"{name}_predict(net, rgb, {width}, {height}, output, decisions)"
    return {
        # First, because it contains other placeholders.
        "SIGNED": _SIGNED if machine.signer else "",
        "NAME": name,
        "UPPER": upper,
        "TARGET": machine.target.name,
        "VERSION": f"tcc {__version__}",
        "NUMBER": __version__,
        "GLIBC": GLIBC,
        "ARENA": f"{network.arena_size:,}",
        "WEIGHTS": f"{constant_bytes:,}",
        "INPUT": input_declaration,
        "RUN": run_call,
    }


def _fill_template(text: str, substitutions: Mapping[str, str]) -> str:
    for placeholder, replacement in substitutions.items():
        # Not `format`: C, pkg-config and CMake use braces and dollar signs.
        text = text.replace(f"@{placeholder}@", replacement)
    return text
