"""What a target's files take with the network in floats: other precisions compare with it."""

from tcc.compiler import passes
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Model
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.progress import Progress


def full_size(spec: Spec, given: WeightSource, device: Device, progress: Progress) -> int | None:
    """Return the bytes of a target's files with the spec's own weights in floats.

    Those of other precisions compare with these. None: the size is unknown, because the target has
    no such precision, or cannot build this network at it.

    Args:
        spec: The network.
        given: Its weights.
        device: The target.
        progress: Told of each stage.
    """
    # Built to be weighed: a file's size is not that of its weights, by alignment and by its own
    # structure.
    full = next((each for each in device.target.precisions if each.full), None)
    if full is None:
        return None
    model = passes.run(Model(spec.graph, given.tensors), device.passes(full))
    # The int8 network was accepted; the float one may need kernels or memory that there are not.
    if any(device.refusals(model.graph)):
        return None
    try:
        return sum(map(len, device.emit(model, full, progress).files.values()))
    except UserError:
        return None
