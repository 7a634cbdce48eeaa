"""Run a bundle's artifact, for all commands, and check its outputs and its right to run."""

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


class Misfit(UserError):  # noqa: N818 - it names the finding
    """The outputs of an artifact are not those in its manifest."""


def compute_tolerances(bundle: Bundle, device: Device) -> Mapping[str, Tolerance]:
    """Return the tolerance of each output: the smaller of the manifest's and the artifact's.

    Raises:
        Mislabelled: The manifest and the artifact contradict each other (E0656).
        UserError: The artifact cannot be read.
    """
    bundle_manifest = bundle.manifest
    precision = device.get_precision(bundle_manifest.precision)
    artifact_numbers = device.read_number_types(bundle.model)
    inexact_layers = bundle_manifest.calibration.inexact if bundle_manifest.calibration else ()
    # Compare the number types in the file with the manifest: a forged manifest could state a
    # tolerance that lets anything pass.
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
        message = "the manifest does not match the artifact"
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
    # A manifest may state a smaller tolerance than its artifact's, never a larger one.
    return {
        name: min(stated_tolerance, tolerance, key=lambda candidate: candidate.relative)
        for name, tolerance in output_tolerances.items()
    }


def run(bundle: Bundle, device: Device, images: "Sequence[NDArray[np.uint8]]") -> "list[Outputs]":
    """Return the raw outputs for images, as the manifest describes them.

    Args:
        bundle: A bundle that was read, so that its files match its manifest.
        device: Its target, with the backend that runs it.
        images: uint8 (height, width, 3) each.

    Returns:
        For each image, float32 outputs by name, in the manifest's shapes.

    Raises:
        Misfit: The outputs have other names, shapes or types than in the manifest (E0655).
        Mislabelled: The artifact is not what the manifest states (E0656).
        UserError: The input is no image (E0625), the artifact cannot be run, or the bundle was
            replaced while in use (E0622).
    """
    check_images(bundle)
    return _run_artifact(bundle, device, device.run, images)


def check(bundle: Bundle, device: Device) -> None:
    """Refuse an artifact that does not match its manifest, or a program that is not trusted.

    Raises:
        Untrusted: Its program was not built here (E1350).
        Mislabelled: The artifact is not what the manifest states (E0656).
        UserError: The artifact cannot be read.
    """
    check_trust(bundle, device)
    compute_tolerances(bundle, device)


def check_images(bundle: Bundle) -> None:
    """Refuse a network whose input is no image (E0625)."""
    input_contract = bundle.manifest.input
    if input_contract.preprocess is None:
        raise build_image_error(
            input_contract.name, input_contract.shape, make_file_span(str(bundle.folder))
        )


def infer(
    bundle: Bundle, device: Device, tensors: "Sequence[NDArray[np.float32]]"
) -> "list[Outputs]":
    """Return the raw outputs for preprocessed tensors; errors as for `run`.

    Args:
        bundle: A bundle that was read.
        device: Its target, with the backend that runs it.
        tensors: float32 of the input's shape, without a batch axis, each.

    Returns:
        For each tensor, float32 outputs by name, in the manifest's shapes.
    """
    return _run_artifact(bundle, device, device.infer, tensors)


def collect_quantized_layers(
    bundle: Bundle, device: Device, tensors: "Iterable[NDArray[np.float32]]"
) -> "Iterator[QuantizedValues] | None":
    """Return the quantized values of an artifact's layers; None if they cannot be read here.

    Args:
        bundle: A bundle that was read.
        device: Its target.
        tensors: float32 of the input's shape, without a batch axis, each.

    Returns:
        For each tensor, 8-bit integers by layer name.

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
    """Return the float values of an artifact's layers; see `collect_quantized_layers`."""
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
        raise _build_mismatch_error(bundle, f"{len(all_outputs)} results for {len(inputs)} inputs")
    # The runtime follows the file, and the file may differ from the manifest.
    for outputs in all_outputs:
        check_outputs(bundle, outputs)
    return all_outputs


def check_outputs(bundle: Bundle, outputs: "Outputs") -> None:
    """Refuse outputs that do not match the manifest.

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
    return "x".join(map(str, shape)) or "scalar"


def _build_mismatch_error(bundle: Bundle, label: str) -> Misfit:
    source = make_file_span(str(bundle.model))
    message = "the artifact's outputs do not match the bundle's manifest"
    help = "build the bundle again"
    return Misfit((Diagnostic("E0655", message, source, label=label, help=help),))


class Untrusted(UserError):  # noqa: N818 - it names the finding
    """A bundle's program was not built here and is not signed by a trusted key."""


def list_code(device: Device, files: Iterable[BundleFile]) -> tuple[BundleFile, ...]:
    """Return the files of a bundle that are executed when it runs here."""
    prefix = f"{MODEL}/"
    model_files = {f.path.removeprefix(prefix): f for f in files if f.path.startswith(prefix)}
    return tuple(model_files[name] for name in device.list_code_files(model_files))


def check_trust(bundle: Bundle, device: Device) -> None:
    """Refuse to run a program that was not built here and is not signed by a trusted key.

    Args:
        bundle: A bundle that was read, so that its files have the hashes of its manifest.
        device: Its target.

    Raises:
        Untrusted: The bundle has such a program (E1350).
    """
    if bundle.trusted:
        return
    files = list_code(device, bundle.manifest.files)
    unknown_files = [
        file for file in files if not user_folders.KNOWN_PROGRAMS.contains(file.sha256)
    ]
    # The signature was verified when the bundle was read.
    if unknown_files and bundle.signer is None:
        raise _build_untrusted_error(bundle, unknown_files[0])


def mark_trusted(bundle: Bundle, device: Device) -> Bundle:
    """Record a bundle's program as trusted, at the user's request, and return the bundle."""
    user_folders.KNOWN_PROGRAMS.add(
        file.sha256 for file in list_code(device, bundle.manifest.files)
    )
    return replace(bundle, trusted=True)


def _build_untrusted_error(bundle: Bundle, file: BundleFile) -> Untrusted:
    source = make_file_span(str(bundle.folder / file.path))
    message = "this program was not built here and is not signed by a key that you trust"
    label = "when it runs, it can do everything that you can do on this machine"
    help = "if you trust its source, allow it from now on: `tcc verify BUNDLE --trust`"
    obstacle = user_folders.KNOWN_PROGRAMS.find_obstacle()
    diagnostic = Diagnostic("E1350", message, source, label, (obstacle,) if obstacle else (), help)
    return Untrusted((diagnostic,))


PROGRAM_FILE = "graph/int8.txt"
"""The printed integer program, by its path in the bundle."""
MAX_PROGRAM_BYTES = 1 << 26
"""Largest part of it that is read: twenty thousand nodes take about 6 MB."""
_NODE = re.compile(r"^  %(\S+) = ", re.MULTILINE)
_LAYER_END = re.compile(r"[:/]|_*\Z")
"""Where a layer's name may end; a duplicate tensor name gets trailing underscores."""
_OUTPUT = re.compile(r"^  output (\S+) = %(\S+)", re.MULTILINE)


def find_float_problem(
    folder: Path, inexact: Sequence[str], in_float: frozenset[str] | None
) -> str | None:
    """Return the first mismatch between the listed float layers and the artifact; None if none.

    Args:
        folder: The bundle.
        inexact: The layers in float that the manifest lists.
        in_float: The artifact's operators with float results; None if its file names none.
    """
    if not inexact:  # then the outputs must be bit-exact anyway
        return None
    try:
        with regular_files.open_file(folder / PROGRAM_FILE) as file:
            text = file.read(MAX_PROGRAM_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return f"calibration/inexact: cannot be checked, because {PROGRAM_FILE} is unreadable"
    outputs = dict(_OUTPUT.findall(text))
    # An operator between conversions has the name of its node with this suffix.
    layers = {name.removesuffix(":float") for name in _NODE.findall(text)}
    for name in inexact:
        if name not in layers:
            return f"calibration/inexact: `{name[:40]}` is not a layer of {PROGRAM_FILE}"
    if in_float is None:
        return None
    layers_in_float = set()
    for name in sorted(in_float):
        matching_layers = {_find_layer(name, layers), outputs.get(name)} & set(inexact)
        if not matching_layers:
            return f"calibration/inexact: `{name[:40]}` is in float, but is not listed"
        layers_in_float |= matching_layers
    missing_layer = next((name for name in inexact if name not in layers_in_float), None)
    return (
        missing_layer
        and f"calibration/inexact: `{missing_layer[:40]}` is listed, but is not in float"
    )


def _find_layer(operator: str, layers: Container[str]) -> str | None:
    """Return the layer of an operator: `fc:x/y` belongs to `fc`, unless it is a layer itself."""
    stem_ends = [boundary.start() for boundary in _LAYER_END.finditer(operator)]
    stems = (operator[:end] for end in reversed(stem_ends))
    return next((stem for stem in stems if stem in layers), None)
