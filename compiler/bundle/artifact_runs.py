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
from tcc.compiler.support.diagnostics import Diagnostic, UserError, make_file_span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = Mapping[str, NDArray[np.float32]]
    QuantizedValues = Mapping[str, NDArray[Any]]


class Misfit(UserError):  # noqa: N818 - what it is, not what it does
    """An artifact gives something else than its manifest says."""


def compute_tolerances(bundle: Bundle, device: Device) -> Mapping[str, Tolerance]:
    """Return how far each output may be from its goldens: by the manifest, and by the artifact.

    Raises:
        Mislabelled: The two contradict each other (E0656).
        UserError: The artifact cannot be read.
    """
    bundle_manifest = bundle.manifest
    precision = device.get_precision(bundle_manifest.precision)
    artifact_numbers = device.read_number_types(bundle.model)
    inexact_layers = bundle_manifest.calibration.inexact if bundle_manifest.calibration else ()
    # What numbers the file itself computes with, held against what the manifest says of it: a
    # manifest can be forged so that anything passes.
    problem = (
        agreement.find_tolerance_problem(precision, inexact_layers, artifact_numbers)
        if artifact_numbers
        else None
    )
    if problem is None and precision.exact:
        in_float = artifact_numbers.float_operators if artifact_numbers else None
        problem = find_float_problem(bundle.folder, inexact_layers, in_float)
    if problem:
        source = make_file_span(str(bundle.folder / manifest.NAME))
        message = "the manifest says of the artifact what it is not"
        help = "build the bundle again"
        raise Mislabelled((Diagnostic("E0656", message, source, label=problem, help=help),))
    output_tolerances = {
        output.name: agreement.compute_output_tolerance(
            precision, inexact_layers, artifact_numbers, output.name
        )
        if artifact_numbers
        else agreement.get_tolerance(precision, inexact_layers)
        for output in bundle_manifest.outputs
    }
    stated_tolerance = bundle_manifest.goldens.tolerance
    # A manifest may ask for less than its artifact earns, never for more.
    return {
        name: min(stated_tolerance, tolerance, key=lambda candidate: candidate.relative)
        for name, tolerance in output_tolerances.items()
    }


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
    return _run_artifact(bundle, device, device.run, images)


def check(bundle: Bundle, device: Device) -> None:
    """Refuse to run what is not what its manifest says, and a program that nobody vouches for.

    Raises:
        Untrusted: Its program was not built here (E1350).
        Mislabelled: The artifact is not what the manifest says (E0656).
        UserError: The artifact cannot be read.
    """
    check_trust(bundle, device)
    compute_tolerances(bundle, device)


def check_images(bundle: Bundle) -> None:
    """Refuse a network that does not take images (E0625)."""
    source = bundle.manifest.input
    if source.preprocess is None:
        raise build_image_error(source.name, source.shape, make_file_span(str(bundle.folder)))


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
    return _run_artifact(bundle, device, device.infer, tensors)


def collect_quantized_layers(
    bundle: Bundle, device: Device, tensors: "Iterable[NDArray[np.float32]]"
) -> "Iterator[QuantizedValues] | None":
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
    reader = device.quantized_value_reader
    if reader is None:
        return None
    check_trust(bundle, device)
    return iter(reader.trace_quantized_values(device.target, bundle.model, bundle.input, tensors))


def collect_float_layers(
    bundle: Bundle, device: Device, tensors: "Iterable[NDArray[np.float32]]"
) -> "Iterator[QuantizedValues] | None":
    """Return the floats of the artifact's layers; see `collect_quantized_layers`."""
    reader = device.float_value_reader
    if reader is None:
        return None
    check_trust(bundle, device)
    return iter(reader.trace_float_values(device.target, bundle.model, bundle.input, tensors))


def _run_artifact(
    bundle: Bundle,
    device: Device,
    run_model: Callable[[Path, Input, Any], Any],
    inputs: Sequence[Any],
) -> "list[Outputs]":

    def run_checked(bundle: Bundle) -> "list[Outputs]":
        check(bundle, device)
        model_outputs: list[Outputs] = run_model(bundle.model, bundle.input, inputs)
        return model_outputs

    all_outputs = bundle_folder.run_undisturbed(bundle, run_checked)
    if len(all_outputs) != len(inputs):
        raise _build_mismatch_error(bundle, f"{len(all_outputs)} answers to {len(inputs)} inputs")
    # Shapes and types of every answer: a runtime gives what the file says, and the file may be
    # another.
    for outputs in all_outputs:
        check_outputs(bundle, outputs)
    return all_outputs


def check_outputs(bundle: Bundle, outputs: "Outputs") -> None:
    """Refuse outputs that are not those of the manifest.

    Raises:
        Misfit: They have other names, shapes or types (E0655).
    """
    for problem in _find_output_problems(bundle, outputs):
        raise _build_mismatch_error(bundle, problem)


def _find_output_problems(bundle: Bundle, outputs: "Outputs") -> "list[str]":
    contracts = {contract.name: contract for contract in bundle.manifest.outputs}
    if outputs.keys() != contracts.keys():
        output_names = ", ".join(sorted(outputs))[:80] or "none"
        return [f"its outputs are {output_names}, not {', '.join(sorted(contracts))[:80]}"]
    return [
        f"output `{name}` is {array.dtype} {_describe_shape(array.shape)}, "
        f"not {contracts[name].dtype} {_describe_shape(contracts[name].shape)}"
        for name, array in outputs.items()
        if array.shape != contracts[name].shape or array.dtype != contracts[name].dtype
    ]


def _describe_shape(shape: "tuple[int, ...]") -> str:
    return "x".join(map(str, shape)) or "single numbers"


def _build_mismatch_error(bundle: Bundle, label: str) -> Misfit:
    source = make_file_span(str(bundle.model))
    message = "the artifact does not give what the bundle's manifest says"
    help = "build the bundle again"
    return Misfit((Diagnostic("E0655", message, source, label=label, help=help),))


class Untrusted(UserError):  # noqa: N818 - what it is, not what it does
    """A bundle's program is of somebody whom nobody vouched for."""


def list_code(device: Device, files: Iterable[BundleFile]) -> tuple[BundleFile, ...]:
    """Return those of a bundle's files that running it here executes."""
    prefix = f"{MODEL}/"
    model_files = {f.path.removeprefix(prefix): f for f in files if f.path.startswith(prefix)}
    return tuple(model_files[name] for name in device.list_code_files(model_files))


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
    unknown_files = [
        file for file in files if not user_folders.KNOWN_PROGRAMS.contains(file.sha256)
    ]
    # Whether a signature holds was looked at when the bundle was read.
    if unknown_files and bundle.signer is None:
        raise _build_untrusted_error(bundle, unknown_files[0])


def mark_trusted(bundle: Bundle, device: Device) -> Bundle:
    """Return a bundle whose program may run, now and later: the user says so."""
    user_folders.KNOWN_PROGRAMS.add(
        file.sha256 for file in list_code(device, bundle.manifest.files)
    )
    return replace(bundle, trusted=True)


def _build_untrusted_error(bundle: Bundle, file: BundleFile) -> Untrusted:
    source = make_file_span(str(bundle.folder / file.path))
    message = "this program was not built here, and no key that you trust signed it"
    label = "whoever made it can do with this machine what you can"
    help = "if you know where it comes from, `tcc verify BUNDLE --trust` lets it run, now and later"
    obstacle = user_folders.KNOWN_PROGRAMS.find_obstacle()
    diagnostic = Diagnostic("E1350", message, source, label, (obstacle,) if obstacle else (), help)
    return Untrusted((diagnostic,))


PROGRAM_FILE = "graph/int8.txt"
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
        with regular_files.open_file(folder / PROGRAM_FILE) as file:
            text = file.read(MAX_PROGRAM_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return f"calibration/inexact: the layers are those of {PROGRAM_FILE}, which cannot be read"
    outputs = dict(_OUTPUT.findall(text))
    # An operator between conversions is called after its node, with this behind it.
    layers = {name.removesuffix(":float") for name in _NODE.findall(text)}
    for name in inexact:
        if name not in layers:
            return f"calibration/inexact: `{name[:40]}` is no layer of {PROGRAM_FILE}"
    if in_float is None:
        return None
    layers_in_float = set()
    for name in sorted(in_float):
        matching_layers = {_find_layer(name, layers), outputs.get(name)} & set(inexact)
        if not matching_layers:
            return f"calibration/inexact: `{name[:40]}` is in float, and is not there"
        # Both ways: a layer in float that is not listed, and one that is listed and is not in
        # float.
        layers_in_float |= matching_layers
    missing_layer = next((name for name in inexact if name not in layers_in_float), None)
    return (
        missing_layer
        and f"calibration/inexact: `{missing_layer[:40]}` is there, and is not in float"
    )


def _find_layer(operator: str, layers: Container[str]) -> str | None:
    """Return the layer that an operator is of: `fc:x/y` is one of `fc`, unless that is a layer."""
    stem_ends = [boundary.start() for boundary in _LAYER_END.finditer(operator)]
    stems = (operator[:end] for end in reversed(stem_ends))
    return next((stem for stem in stems if stem in layers), None)
