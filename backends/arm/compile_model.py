"""From a model to an artifact: every step in turn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files

from tcc.backends.arm.codegen import c_header, c_source, link, micro_objects, objects
from tcc.backends.arm.codegen.c_source import Sources
from tcc.backends.arm.codegen.network import COUNT_SIZE, COUNTS, Network, levels
from tcc.backends.arm.codegen.zig import ZigError
from tcc.backends.arm.kernels.base import KernelCall
from tcc.backends.arm.machine import GLIBC, Machine
from tcc.backends.arm.schedule import limits
from tcc.backends.arm.schedule.arena import Buffer, input_scratch, plan
from tcc.backends.arm.schedule.program import Copy, ProgramStep, buffers, program
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.target import Artifact, Memory
from tcc.compiler.passes.drop_train_only import drop_train_only
from tcc.compiler.support.progress import Progress, silent
from tcc.compiler.version import __version__


class BuildError(Exception):
    """A model cannot be built though nothing refused it: a fault of ours."""


@dataclass(frozen=True)
class Compiled:
    """A model as C and as the object files of its kernels, under a name."""

    name: str
    network: Network
    sources: Sources
    objects: Mapping[str, bytes]

    @property
    def memory(self) -> Memory:
        """What running it takes."""
        arena = self.network.arena
        return Memory(self.network.arena_size, arena.bound, len(self.sources.weights))


def compiled(
    machine: Machine, model: Model, progress: Progress = silent, *, counted: bool = False
) -> Compiled:
    """Return a model as C and kernels.

    Args:
        machine: What to compile for.
        model: What `refusals` let pass.
        progress: Told of each kernel.
        counted: Whether it counts how often levels are the last ones.

    Raises:
        UserError: It needs more memory than the machine's programs have (E0654).
        BuildError: TVM fails; the message names the node.
        ZigError: A micro-kernel does not compile.
    """
    # Once more after whatever passes were chosen: a kernel for a head that no artifact has would be
    # compiled and called by nothing.
    model = drop_train_only(model)
    name = c_header.identifier(model.graph.name)
    steps = program(model.graph, model.weights, machine, progress)
    # By the kernel: layers that are equal in all but weights share one function. The model's name
    # in front keeps two networks in one program apart.
    symbols = {k: f"{name}_k{i}_{k.word}" for i, k in enumerate(steps.kernels)}
    try:
        kernels = objects.compiled({s: k for k, s in symbols.items()}, machine, progress)
    except objects.CodegenError as error:
        # TVM names a symbol; the user's line of the spec is what helps.
        node = next(n for k, n in steps.kernels.items() if symbols[k] == error.symbol)
        at = next(n.at for n in model.graph.nodes if n.name == node)
        raise BuildError(
            f"{machine.target.name}: no kernel for `{node}` ({at}): {error}"
        ) from error
    ends = levels(steps)
    used = buffers(steps, ends[0] if ends else ())
    # Counts are added to by every run and read after it: they live through all steps.
    last = len(steps.steps) + 1
    counts = [Buffer(COUNTS, COUNT_SIZE * len(steps.steps), 0, last, scratch=True)]
    scratch = input_scratch(steps.graph.inputs[0])
    arena = plan((*used, scratch, *(counts if counted else ())))
    # Here and not among refusals: how much a network needs is known once its values have places.
    limits.check_memory(machine.target.name, model.graph, arena.nbytes)
    network = Network(steps, arena, symbols, counted, machine.variants)
    sources = c_source.sources(network, name, f"tcc {__version__}, {machine.target.name}")
    made = {"kernels.o": kernels, **micro_objects.compiled(steps.kernels, machine)}
    return Compiled(name, network, sources, made)


def emit(
    machine: Machine, model: Model, progress: Progress = silent, *, counted: bool = False
) -> Artifact:
    """Return the artifact of a model for a machine; the arguments are those of `compiled`.

    Raises:
        UserError: It needs more memory than the machine's programs have (E0654).
        BuildError: TVM or zig fails; the message names the node.
    """
    try:
        made = compiled(machine, model, progress, counted=counted)
        sources = replace(made.sources, signer=machine.signer)
        built = link.linked(sources, made.objects, machine, made.name, progress)
    except ZigError as error:
        raise BuildError(f"{machine.target.name}: {model.graph.name}: {error}") from error
    texts = _texts(made.network, machine, made.name, made.memory.weights)
    files = {path: text.encode() for path, text in texts.items()}
    layers = {step.result: named(step) for step in made.network.program.steps}
    return Artifact({**files, **built.files}, built.executable, memory=made.memory, layers=layers)


def named(step: ProgramStep) -> str:
    """Return what computes a step, in words for people."""
    match step:
        case KernelCall(kernel, _, _):
            micro = ", ".join(each.word for each in kernel.micro_kernels)
            return f"{kernel.word} in {micro}" if micro else kernel.word
        case Copy():
            return "copy"


FILES = {
    "README.txt": "README.txt",
    "sample.cpp": "sample.cpp",
    "model.pc": "{name}.pc",
    "model-config.cmake": "{name}-config.cmake",
}
"""Texts of `runtime/`, and what they are called beside a model."""

_SIGNED = """
                 starts only where @NAME@-run.sig is its signature by the key in @NAME@-run.pem"""


def _texts(network: Network, machine: Machine, name: str, weights: int) -> dict[str, str]:
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
