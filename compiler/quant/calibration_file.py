"""Conversion between calibrations and their documents, with checks against the model."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle.manifest import InputContract, NetworkRecord, WeightsOrigin
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.ops import Conv
from tcc.compiler.quant.calibration import Calibration, RoundedWeights
from tcc.compiler.quant.calibration_document import (
    VERSION,
    CalibratedValue,
    CalibrationDocument,
    CalibrationImages,
    EncodedWeights,
)
from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.program.saturated_values import CalibrationSaturation
from tcc.compiler.quant.scale_groups import MIN_SCALE, find_scale_groups, list_unfused_values
from tcc.compiler.reference.output_comparison import get_inference_outputs
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span
from tcc.compiler.version import __version__

MADE_WITH = ("numpy", "onnxruntime")
"""Packages that can change a calibration by their version."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Provenance of a calibration: method, target, passes, network and weights."""

    method: str
    target: str
    passes: str
    network: NetworkRecord
    weights: WeightsOrigin


def build_document(
    provenance: Provenance,
    lowered_model: Model,
    calibration_result: CalibrationResult,
    dataset: DataSet,
) -> CalibrationDocument:
    """Return the document of a calibration.

    Args:
        provenance: The calibration's provenance.
        lowered_model: The lowered model.
        calibration_result: The method's result.
        dataset: The calibration images.
    """
    calibration = calibration_result.calibration
    (network_input,) = lowered_model.graph.inputs
    return CalibrationDocument(
        tcc_calibration=VERSION,
        method=provenance.method,
        used=calibration_result.used,
        target=provenance.target,
        model=provenance.network,
        weights=provenance.weights,
        data=CalibrationImages(
            dataset.digest, len(dataset), calibration_result.held_out, calibration_result.repeats
        ),
        input=InputContract(
            network_input.name,
            network_input.type.shape,
            network_input.type.dtype.value,
            network_input.preprocess,
        ),
        passes=provenance.passes,
        values={
            name: CalibratedValue(
                params.scale,
                params.signed,
                calibration_result.traces.get(name),
                params.zero_point,
            )
            for name, params in calibration.ranges.items()
        },
        rounded={name: _encode_weights(params) for name, params in calibration.rounded.items()},
        # Sorted: the order depends on the method. `values` have the graph's order.
        factors={
            name: _encode_array(params) for name, params in sorted(calibration.factors.items())
        },
        in_float=tuple(sorted(calibration.in_float)),
        judged=dict(calibration_result.qualities_by_candidate),
        notices=calibration_result.notices,
        expected=dict(calibration_result.expected),
        **_build_saturation_fields(calibration_result.saturation),
        made_with={"tcc": __version__, **{name: version(name) for name in MADE_WITH}},
    )


def build_retrained_document(
    document: CalibrationDocument, calibration: Calibration, weights: WeightsOrigin
) -> CalibrationDocument:
    """Return the document of a network after quantization-aware training, with the same scales.

    Args:
        document: The document before the training.
        calibration: The calibration with the quantized weights after the training.
        weights: The origin of the trained weights.
    """
    rounded = {
        name: _encode_weights(rounded_weights)
        for name, rounded_weights in calibration.rounded.items()
    }
    cleared_document = replace(document, judged={}, notices=(), expected={})
    return replace_saturation(
        replace(cleared_document, weights=weights, rounded=rounded, seal=""), None
    )


def replace_saturation(
    document: CalibrationDocument, saturation: CalibrationSaturation | None
) -> CalibrationDocument:
    """Return the unsealed document with other counts of saturated values; None removes them."""
    return replace(document, **_build_saturation_fields(saturation), seal="")


def _build_saturation_fields(saturation: CalibrationSaturation | None) -> dict[str, Any]:
    counts = saturation or CalibrationSaturation()
    return {
        "usual": dict(counts.mean),
        "usual_largest": dict(counts.largest),
        "usual_images": counts.images,
    }


def decode_calibration(
    document: CalibrationDocument, lowered_model: Model, name: str
) -> Calibration:
    """Decode the calibration of a document, and check that it fits a lowered model.

    Args:
        document: The document.
        lowered_model: The lowered model.
        name: The file's name in errors.

    Raises:
        UserError: The calibration is for another graph (E0733), or it is damaged (E0730).
    """
    # Names first, since that is cheap; tensor shapes are checked when they are decoded.
    problems = tuple(_find_mismatches(document, lowered_model, name))
    if problems:
        raise UserError(problems[:1])
    nodes = {node.name: node for node in lowered_model.graph.nodes}
    rounded = {
        node: _decode_weights(params, nodes[node], lowered_model, name)
        for node, params in document.rounded.items()
    }
    types = lowered_model.graph.types
    factors = {
        value_name: _decode_array(text, "<f4", types[value_name].shape[:1], name, value_name)
        for value_name, text in document.factors.items()
    }
    ranges = {value_name: params.range for value_name, params in document.values.items()}
    return Calibration(ranges, rounded, factors, frozenset(document.in_float))


def check(
    document: CalibrationDocument, network: NetworkRecord, weights: WeightsOrigin, name: str
) -> None:
    """Check that a document is for this network with these weights.

    Args:
        document: The document.
        network: The network to build.
        weights: Its weights.
        name: The file's name in errors.

    Raises:
        UserError: The document is for another spec (E0731) or other weights (E0732).
    """
    at = make_file_span(name)
    if document.model.spec != network.spec:
        label = f"it is for `{document.model.name}`"
        help = "calibrate again, since the spec, a library or a parameter (`--set`) has changed"
        if document.model.name == network.name:
            label = (
                "it is for another version of "
                f"`{network.name}`{_describe_change(document, network)}"
            )
        message = f"this calibration is not for this spec of `{network.name}`"
        raise fail("E0731", message, at, label=label, help=help)
    # Ranges of other weights would clip or lose resolution without any sign of it.
    if document.weights.digest != weights.digest:
        label = (
            f"calibrated with {_format_origin(document.weights)}, building with"
            f" {_format_origin(weights)}"
        )
        help = "calibrate again with these weights, or give the calibrated ones with --weights"
        message = "this calibration is for other weights"
        raise fail("E0732", message, at, label=label, help=help)


def _describe_change(document: CalibrationDocument, network: NetworkRecord) -> str:
    calibrated_params, current_params = document.model.params, network.params
    names = [
        name
        for name in {**calibrated_params, **current_params}
        if calibrated_params.get(name) != current_params.get(name)
    ]
    if not names:
        return ""
    changed_name = names[0]
    return (
        f": there {changed_name}={calibrated_params.get(changed_name, '?')}, here "
        f"{changed_name}={current_params.get(changed_name, '?')}"
    )


def _format_origin(weights: WeightsOrigin) -> str:
    description = weights.file or (
        f"random weights of seed {weights.seed}" if weights.seed is not None else ""
    )
    digest = weights.digest[:12]
    return f"{description} ({digest})" if description else f"weights with digest {digest}"


def _find_mismatches(
    document: CalibrationDocument, lowered_model: Model, name: str
) -> Iterator[Diagnostic]:
    at, graph = make_file_span(name), lowered_model.graph
    help = "calibrate again: a calibration only fits the same version of tcc and the same --passes"
    damage_help = "calibrate again: the file was changed"

    def build_mismatch(label: str) -> Diagnostic:
        return Diagnostic("E0733", "this calibration is for another graph", at, label, help=help)

    names = list_unfused_values(graph)
    missing = [value_name for value_name in names if value_name not in document.values]
    unexpected = [value_name for value_name in document.values if value_name not in names]
    if missing or unexpected:
        yield build_mismatch(
            f"it has no scale for `{missing[0]}`"
            if missing
            else f"its value `{unexpected[0]}` is not in the graph"
        )
    elif not _matches_outputs(document, lowered_model):
        yield build_mismatch("its candidates were evaluated on other outputs")
    convolutions = {node.name for node in graph.nodes if isinstance(node.op, Conv)}
    for node in (
        *(set(document.rounded) - convolutions),
        *(set(document.factors) - set(graph.types)),
    ):
        yield build_mismatch(f"its value `{node}` is not in the graph")
    for value_name, calibrated_value in document.values.items():
        if not _is_scale(calibrated_value.scale):
            message = f"the scale of `{value_name}` is {calibrated_value.scale:g}"
            label = f"a scale is a float32 number of at least {MIN_SCALE:.2g}"
            yield Diagnostic("E0730", message, at, label, help=damage_help)
    for first_member, last_member in _find_split_groups(document, lowered_model):
        message = f"`{first_member}` and `{last_member}` have different scales"
        label = "an operation moves values between them, so that they need the same scale"
        yield Diagnostic("E0730", message, at, label, help=damage_help)


def _find_split_groups(
    document: CalibrationDocument, lowered_model: Model
) -> Iterator[tuple[str, str]]:
    """Yield the first and last member of each group with several scales instead of one."""
    for group in find_scale_groups(lowered_model.graph):
        # An edited file may have this; a concat of two scales has no int8 form.
        kinds = {v.range for v in map(document.values.get, group) if v}
        if len(kinds) > 1:
            yield group[0], group[-1]


def _is_scale(number: float) -> bool:
    normal = isfinite(number) and number >= MIN_SCALE
    # JSON numbers are float64: a number that is no float32 would be rounded silently.
    return normal and number == float(np.float32(number))


def _matches_outputs(document: CalibrationDocument, lowered_model: Model) -> bool:
    """Whether the candidates were evaluated on the outputs of a model."""
    outputs = {o.name: o.meaning for o in get_inference_outputs(lowered_model)}
    return all(
        {n: quality.kind for n, quality in qualities.items()} == outputs
        for qualities in document.judged.values()
    )


def _encode_weights(rounded_weights: RoundedWeights) -> EncodedWeights:
    return EncodedWeights(
        _encode_array(rounded_weights.weight),
        _encode_array(rounded_weights.scale),
        _encode_array(rounded_weights.bias),
    )


def _decode_weights(
    encoded_weights: EncodedWeights, node: Node, lowered_model: Model, name: str
) -> RoundedWeights:
    shape = lowered_model.weights[node.params[0]].shape
    weight = _decode_array(encoded_weights.weight, "|i1", shape, name, node.name)
    scale = _decode_array(encoded_weights.scale, "<f4", shape[:1], name, node.name)
    bias = _decode_array(encoded_weights.bias, "<i4", shape[:1], name, node.name)
    return RoundedWeights(weight, scale, bias)


def _encode_array(array: NDArray[np.generic]) -> str:
    # Files are little-endian on every machine.
    little = array.dtype.newbyteorder("<")
    return base64.b64encode(np.ascontiguousarray(array, little).tobytes()).decode()


def _decode_array(
    text: str, kind: str, shape: tuple[int, ...], name: str, value_name: str
) -> NDArray[Any]:
    """Return a tensor of a document, in the machine's byte order."""
    dtype = np.dtype(kind)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        # Invalid base64 then fails the length check: one message for both.
        content = b""
    size = dtype.itemsize * int(np.prod(shape))
    if len(content) != size:
        label = f"a tensor of `{value_name}` has {len(content):,} bytes; its shape needs {size:,}"
        message, help = "the calibration file is damaged", "calibrate again"
        raise fail("E0730", message, make_file_span(name), label=label, help=help)
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
