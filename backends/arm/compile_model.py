"""From a model to an artifact: every step in turn."""

from tcc.backends.arm.codegen import bundle_texts, c_names, c_source, link, objects
from tcc.backends.arm.codegen.network import Network, levels
from tcc.backends.arm.codegen.zig import ZigError
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.schedule import input_scratch, limits
from tcc.backends.arm.schedule.arena import plan
from tcc.backends.arm.schedule.program import buffers, program
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.target import Artifact, Memory
from tcc.compiler.passes.drop_train_only import drop_train_only
from tcc.compiler.support.progress import Progress, silent
from tcc.compiler.version import __version__


class BuildError(Exception):
    """A model cannot be built though nothing refused it: a fault of ours."""


def emit(machine: Machine, model: Model, progress: Progress = silent) -> Artifact:
    """Return the artifact of a model for a machine.

    Raises:
        UserError: It needs more memory than the machine's programs have (E0654).
        BuildError: TVM or zig fails; the message names the node.
    """
    model = drop_train_only(model)
    name = c_names.identifier(model.graph.name)
    steps = program(model.graph, model.weights, machine, progress)
    symbols = {k: f"{name}_k{i}_{k.word}" for i, k in enumerate(steps.kernels)}
    try:
        kernels = objects.compiled({s: k for k, s in symbols.items()}, machine, progress)
    except objects.CodegenError as error:
        node = next(n for k, n in steps.kernels.items() if symbols[k] == error.symbol)
        at = next(n.at for n in model.graph.nodes if n.name == node)
        raise BuildError(
            f"{machine.target.name}: no kernel for `{node}` ({at}): {error}"
        ) from error
    ends = levels(steps)
    used = buffers(steps, ends[0] if ends else ())
    arena = plan((*used, input_scratch.buffer(steps.graph.inputs[0])))
    limits.check_memory(machine.target.name, model.graph, arena.nbytes)
    network = Network(steps, arena, symbols)
    sources = c_source.sources(network, name, f"tcc {__version__}, {machine.target.name}")
    try:
        made = link.linked(sources, {"kernels.o": kernels}, machine, name, progress)
    except ZigError as error:
        raise BuildError(f"{machine.target.name}: {model.graph.name}: {error}") from error
    size = len(sources.weights)
    texts = bundle_texts.texts(network, machine, name, size)
    files = {**{path: text.encode() for path, text in texts.items()}, **made.files}
    memory = Memory(network.arena_size, arena.bound, size)
    return Artifact(files, made.executable, memory=memory)
