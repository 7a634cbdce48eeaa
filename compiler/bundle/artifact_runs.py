"""A bundle's artifact at work: the one way for all commands to run it, and what it must give."""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.bundle import agreement, bundle_folder, manifest
from tcc.compiler.bundle.agreement import Mislabelled, Tolerance
from tcc.compiler.bundle.bundle_folder import MODEL, Bundle
from tcc.compiler.bundle.manifest import BundleFile
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.image_inputs import build_image_error
from tcc.compiler.support import regular_files, user_folders
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
    problem = agreement.find_tolerance_problem(precision, listed, found) if found else None
    if problem is None and precision.exact:
        in_float = found.in_float if found else None
        problem = find_float_problem(bundle.folder, listed, in_float)
    if problem:
        where = whole_file(str(bundle.folder / manifest.NAME))
        message = "the manifest says of the artifact what it is not"
        help = "build the bundle again"
        raise Mislabelled((Diagnostic("E0656", message, where, label=problem, help=help),))
    own = {
        output.name: agreement.earned(precision, listed, found, output.name)
        if found
        else agreement.allowed(precision, listed)
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
    check_trust(bundle, device)
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
    check_trust(bundle, device)
    return iter(reader.inner_levels(device.target, bundle.model, bundle.input, tensors))


def inner_values(
    bundle: Bundle, device: Device, tensors: "Iterable[NDArray[np.float32]]"
) -> "Iterator[Levels] | None":
    """Return the floats of the artifact's layers; arguments and errors as for `inner_levels`."""
    reader = device.value_reader
    if reader is None:
        return None
    check_trust(bundle, device)
    return iter(reader.inner_values(device.target, bundle.model, bundle.input, tensors))


def _answers(
    bundle: Bundle, device: Device, work: Callable[[Path, Input, Any], Any], inputs: Sequence[Any]
) -> "list[Outputs]":

    def answers(bundle: Bundle) -> "list[Outputs]":
        check(bundle, device)
        found: list[Outputs] = work(bundle.model, bundle.input, inputs)
        return found

    found = bundle_folder.undisturbed(bundle, answers)
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


class Untrusted(UserError):  # noqa: N818 - what it is, not what it does
    """A bundle's program is of somebody whom nobody vouched for."""


def list_code(device: Device, files: Iterable[BundleFile]) -> tuple[BundleFile, ...]:
    """Return those of a bundle's files that running it here executes."""
    start = f"{MODEL}/"
    known = {f.path.removeprefix(start): f for f in files if f.path.startswith(start)}
    return tuple(known[name] for name in device.code(known))


def check_trust(bundle: Bundle, device: Device) -> None:
    """Refuse to run a program that is neither known nor signed by a trusted key.

    Args:
        bundle: A bundle that was read, so that its files have the hashes of its manifest.
        device: Its target.

    Raises:
        Untrusted: There is such a program (E1350).
    """
    if bundle.trusted:
        return
    files = list_code(device, bundle.manifest.files)
    strange = [file for file in files if not user_folders.KNOWN_PROGRAMS.has(file.sha256)]
    # Whether a signature holds was looked at when the bundle was read.
    if strange and bundle.signer is None:
        raise _fail_untrusted(bundle, strange[0])


def trust_program(bundle: Bundle, device: Device) -> Bundle:
    """Return a bundle whose program may run, now and later: the user says so."""
    user_folders.KNOWN_PROGRAMS.add(
        file.sha256 for file in list_code(device, bundle.manifest.files)
    )
    return replace(bundle, trusted=True)


def _fail_untrusted(bundle: Bundle, file: BundleFile) -> Untrusted:
    where = whole_file(str(bundle.folder / file.path))
    message = "this program was not built here, and no key that you trust signed it"
    label = "whoever made it can do with this machine what you can"
    help = "if you know where it comes from, `tcc verify BUNDLE --trust` lets it run, now and later"
    why = user_folders.KNOWN_PROGRAMS.obstacle()
    found = Diagnostic("E1350", message, where, label, (why,) if why else (), help)
    return Untrusted((found,))


PROGRAM = "graph/int8.txt"
"""The printed integer program of a bundle, by its path there."""
MAX_PROGRAM_BYTES = 1 << 26
"""Most of it that is read: twenty thousand nodes take some 6 MB."""
_NODE = re.compile(r"^  %(\S+) = ", re.MULTILINE)
_LAYER_END = re.compile(r"[:/]|_*\Z")
"""Where a layer's name may end; a tensor whose name was taken has underscores behind it."""
_OUTPUT = re.compile(r"^  output (\S+) = %(\S+)", re.MULTILINE)


def find_float_problem(
    folder: Path, inexact: Sequence[str], in_float: frozenset[str] | None
) -> str | None:
    """Say which layer is listed and is not there, or is in float and is not listed.

    Args:
        folder: The bundle's.
        inexact: The layers as the manifest lists them.
        in_float: The artifact's operators that give floats; None where its file names none.
    """
    if not inexact:  # then nothing may be off at all
        return None
    try:
        with regular_files.opened(folder / PROGRAM) as file:
            text = file.read(MAX_PROGRAM_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return f"calibration/inexact: the layers are those of {PROGRAM}, which cannot be read"
    outputs = dict(_OUTPUT.findall(text))
    # An operator between conversions is called after its node, with this behind it.
    layers = {name.removesuffix(":float") for name in _NODE.findall(text)}
    for name in inexact:
        if name not in layers:
            return f"calibration/inexact: `{name[:40]}` is no layer of {PROGRAM}"
    if in_float is None:
        return None
    seen = set()
    for name in sorted(in_float):
        found = {_layer_of(name, layers), outputs.get(name)} & set(inexact)
        if not found:
            return f"calibration/inexact: `{name[:40]}` is in float, and is not there"
        # Both ways: a layer in float that is not listed, and one that is listed and is not in
        # float.
        seen |= found
    lacking = next((name for name in inexact if name not in seen), None)
    return lacking and f"calibration/inexact: `{lacking[:40]}` is there, and is not in float"


def _layer_of(operator: str, layers: Container[str]) -> str | None:
    """Return the layer that an operator is of: `fc:x/y` is one of `fc`, unless that is a layer."""
    ends = [found.start() for found in _LAYER_END.finditer(operator)]
    stems = (operator[:end] for end in reversed(ends))
    return next((stem for stem in stems if stem in layers), None)
