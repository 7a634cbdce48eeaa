"""A bundle's artifact at work: the one way for all commands to run it, and what it must give."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.bundle import bundle_in_use, float_layers, manifest, program_trust, tolerance
from tcc.compiler.bundle.agreement import Mislabelled
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import Tolerance
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.image_inputs import build_image_error
from tcc.compiler.support.diagnostics import Diagnostic, UserError, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = Mapping[str, NDArray[np.float32]]
    Levels = Mapping[str, NDArray[Any]]


class Misfit(UserError):  # noqa: N818 - what it is, not what it does
    """An artifact gives something else than its manifest says."""


def allowed(bundle: Bundle, device: Device) -> Mapping[str, Tolerance]:
    """Return how far each output may be from its goldens: by the manifest, and by the artifact.

    Raises:
        Mislabelled: The two contradict each other (E0656).
        UserError: The artifact cannot be read.
    """
    about = bundle.manifest
    precision = device.precision(about.precision)
    found = device.numbers(bundle.model)
    listed = about.calibration.inexact if about.calibration else ()
    # What numbers the file itself computes with, held against what the manifest says of it: a
    # manifest can be forged so that anything passes.
    problem = tolerance.problem(precision, listed, found) if found else None
    if problem is None and precision.exact:
        in_float = found.in_float if found else None
        problem = float_layers.problem(bundle.folder, listed, in_float)
    if problem:
        where = whole_file(str(bundle.folder / manifest.NAME))
        message = "the manifest says of the artifact what it is not"
        help = "build the bundle again"
        raise Mislabelled((Diagnostic("E0656", message, where, label=problem, help=help),))
    own = {
        output.name: tolerance.earned(precision, listed, found, output.name)
        if found
        else tolerance.allowed(precision, listed)
        for output in about.outputs
    }
    said = about.goldens.tolerance
    # A manifest may ask for less than its artifact earns, never for more.
    return {name: min(said, one, key=lambda each: each.relative) for name, one in own.items()}


def run(bundle: Bundle, device: Device, images: "Sequence[NDArray[np.uint8]]") -> "list[Outputs]":
    """Return the raw outputs for images, uint8 (height, width, 3): those of the manifest.

    Args:
        bundle: A bundle that was read, so that its files are what its manifest says.
        device: Its target, with the backend that runs it.
        images: uint8 (height, width, 3) each.

    Returns:
        For each image, float32 outputs by name, of the manifest's shapes.

    Raises:
        Misfit: It gives other outputs, or outputs of another shape or type (E0655).
        Mislabelled: The artifact is not what the manifest says (E0656).
        UserError: The input is not made from images (E0625), the artifact cannot be run, or
            another bundle took its place meanwhile (E0622).
    """
    check_images(bundle)
    return _answers(bundle, device, device.run, images)


def check(bundle: Bundle, device: Device) -> None:
    """Refuse to run what is not what its manifest says, and a program that nobody vouches for.

    Raises:
        Untrusted: Its program was not built here (E1350).
        Mislabelled: The artifact is not what the manifest says (E0656).
        UserError: The artifact cannot be read.
    """
    program_trust.check(bundle, device)
    allowed(bundle, device)


def check_images(bundle: Bundle) -> None:
    """Refuse a network that does not take images (E0625)."""
    source = bundle.manifest.input
    if source.preprocess is None:
        raise build_image_error(source.name, source.shape, whole_file(str(bundle.folder)))


def infer(
    bundle: Bundle, device: Device, tensors: "Sequence[NDArray[np.float32]]"
) -> "list[Outputs]":
    """Return the raw outputs for preprocessed tensors of the input's shape; errors as for `run`.

    Args:
        bundle: A bundle that was read.
        device: Its target, with the backend that runs it.
        tensors: float32 of the input's shape, without a batch axis, each.

    Returns:
        For each tensor, float32 outputs by name, of the manifest's shapes.
    """
    return _answers(bundle, device, device.infer, tensors)


def inner_levels(
    bundle: Bundle, device: Device, tensors: "Iterable[NDArray[np.float32]]"
) -> "Iterator[Levels] | None":
    """Return what the artifact's layers give for tensors; None where nothing looks into it here.

    Args:
        bundle: A bundle that was read.
        device: Its target.
        tensors: float32 of the input's shape, without a batch axis, each.

    Returns:
        For each tensor, 8-bit integers by the names of the layers.

    Raises:
        Untrusted: Its program was not built here (E1350).
    """
    reader = device.level_reader
    if reader is None:
        return None
    program_trust.check(bundle, device)
    return iter(reader.inner_levels(device.target, bundle.model, bundle.input, tensors))


def inner_values(
    bundle: Bundle, device: Device, tensors: "Iterable[NDArray[np.float32]]"
) -> "Iterator[Levels] | None":
    """Return the floats of the artifact's layers; arguments and errors as for `inner_levels`."""
    reader = device.value_reader
    if reader is None:
        return None
    program_trust.check(bundle, device)
    return iter(reader.inner_values(device.target, bundle.model, bundle.input, tensors))


def _answers(
    bundle: Bundle, device: Device, work: Callable[[Path, Input, Any], Any], inputs: Sequence[Any]
) -> "list[Outputs]":

    def answers(bundle: Bundle) -> "list[Outputs]":
        check(bundle, device)
        found: list[Outputs] = work(bundle.model, bundle.input, inputs)
        return found

    found = bundle_in_use.undisturbed(bundle, answers)
    if len(found) != len(inputs):
        raise _misfit(bundle, f"{len(found)} answers to {len(inputs)} inputs")
    # Shapes and types of every answer: a runtime gives what the file says, and the file may be
    # another.
    for outputs in found:
        check_outputs(bundle, outputs)
    return found


def check_outputs(bundle: Bundle, outputs: "Outputs") -> None:
    """Refuse outputs that are not those of the manifest.

    Raises:
        Misfit: They have other names, shapes or types (E0655).
    """
    for problem in _problems(bundle, outputs):
        raise _misfit(bundle, problem)


def _problems(bundle: Bundle, outputs: "Outputs") -> "list[str]":
    wanted = {result.name: result for result in bundle.manifest.outputs}
    if outputs.keys() != wanted.keys():
        gives = ", ".join(sorted(outputs))[:80] or "none"
        return [f"its outputs are {gives}, not {', '.join(sorted(wanted))[:80]}"]
    return [
        f"output `{name}` is {value.dtype} {_spell(value.shape)}, "
        f"not {wanted[name].dtype} {_spell(wanted[name].shape)}"
        for name, value in outputs.items()
        if value.shape != wanted[name].shape or value.dtype != wanted[name].dtype
    ]


def _spell(shape: "tuple[int, ...]") -> str:
    return "x".join(map(str, shape)) or "single numbers"


def _misfit(bundle: Bundle, label: str) -> Misfit:
    where = whole_file(str(bundle.model))
    message = "the artifact does not give what the bundle's manifest says"
    help = "build the bundle again"
    return Misfit((Diagnostic("E0655", message, where, label=label, help=help),))
