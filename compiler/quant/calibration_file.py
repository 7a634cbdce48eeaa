"""Calibrations in and out of their documents, held against the model that they are for."""

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
from tcc.compiler.quant.calibration import Calibration, Range, RoundedWeights
from tcc.compiler.quant.calibration_document import (
    VERSION,
    CalibratedValue,
    CalibrationDocument,
    CalibrationImages,
    EncodedWeights,
)
from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.program.level_ends import UsualSaturation
from tcc.compiler.quant.scale_groups import SMALLEST, kept_values, scale_groups
from tcc.compiler.reference.output_comparison import judged_outputs
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, whole_file
from tcc.compiler.version import __version__

MADE_WITH = ("numpy", "onnxruntime")
"""Packages whose versions may change a calibration."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a calibration was made of and for: method, target and passes by name."""

    method: str
    target: str
    passes: str
    network: NetworkRecord
    weights: WeightsOrigin


def document(
    about: Provenance, ready: Model, result: CalibrationResult, data: DataSet
) -> CalibrationDocument:
    """Return the document of a calibration.

    Args:
        about: What the calibration is of and for.
        ready: The ready model.
        result: What the method found.
        data: The images that it was found with.
    """
    found = result.calibration
    (source,) = ready.graph.inputs
    return CalibrationDocument(
        tcc_calibration=VERSION,
        method=about.method,
        used=result.used,
        target=about.target,
        model=about.network,
        weights=about.weights,
        data=CalibrationImages(data.digest, len(data), result.held_out, result.repeats),
        input=InputContract(
            source.name, source.type.shape, source.type.dtype.value, source.preprocess
        ),
        passes=about.passes,
        values={
            name: CalibratedValue(own.scale, own.signed, result.traces.get(name))
            for name, own in found.ranges.items()
        },
        rounded={name: _tensors(own) for name, own in found.rounded.items()},
        # Sorted, as the order in which a method found them is its own affair; `values` have the
        # graph's.
        factors={name: _text(own) for name, own in sorted(found.factors.items())},
        in_float=tuple(sorted(found.in_float)),
        judged=dict(result.judged),
        notices=result.notices,
        expected=dict(result.expected),
        **_usual_fields(result.usual),
        made_with={"tcc": __version__, **{name: version(name) for name in MADE_WITH}},
    )


def retrained(
    found: CalibrationDocument, made: Calibration, weights: WeightsOrigin
) -> CalibrationDocument:
    """Return the document of a network that was trained as integers, with its scales kept.

    Args:
        found: The document that the training began with.
        made: The same calibration with the integer weights of the trained ones.
        weights: Where the trained ones are.
    """
    rounded = {name: _tensors(own) for name, own in made.rounded.items()}
    said = replace(found, judged={}, notices=(), expected={})
    return with_usual(replace(said, weights=weights, rounded=rounded, seal=""), None)


def with_usual(document: CalibrationDocument, usual: UsualSaturation | None) -> CalibrationDocument:
    """Return a document with other counts of saturated values, unsealed; None is no counts."""
    return replace(document, **_usual_fields(usual), seal="")


def _usual_fields(usual: UsualSaturation | None) -> dict[str, Any]:
    counts = usual or UsualSaturation()
    return {
        "usual": dict(counts.mean),
        "usual_largest": dict(counts.largest),
        "usual_images": counts.images,
    }


def calibration(found: CalibrationDocument, ready: Model, name: str) -> Calibration:
    """Return the calibration of a document, which fits a ready model; `name` is its file's.

    Args:
        found: A document.
        ready: The ready model that it is to fit.
        name: What its file is called in errors.

    Raises:
        UserError: It is for another network (E0733), or holds what is no calibration (E0730).
    """
    # All that is cheap first, by names; shapes of tensors when they are decoded.
    problems = tuple(_misfits(found, ready, name))
    if problems:
        raise UserError(problems[:1])
    nodes = {node.name: node for node in ready.graph.nodes}
    rounded = {node: _rounded(own, nodes[node], ready, name) for node, own in found.rounded.items()}
    types = ready.graph.types
    factors = {
        value: _tensor(text, "<f4", types[value].shape[:1], name, value)
        for value, text in found.factors.items()
    }
    ranges = {value: Range(own.scale, own.signed) for value, own in found.values.items()}
    return Calibration(ranges, rounded, factors, frozenset(found.in_float))


def check(
    found: CalibrationDocument, network: NetworkRecord, weights: WeightsOrigin, name: str
) -> None:
    """Refuse a document that is not of this network with these weights.

    Args:
        found: A document.
        network: What is compiled.
        weights: Those that are given.
        name: What the document's file is called in errors.

    Raises:
        UserError: The spec (E0731) or the weights (E0732) are others.
    """
    at = whole_file(name)
    if found.model.spec != network.spec:
        label = f"it is for `{found.model.name}`"
        help = "calibrate again: the spec, a library or a parameter (`--set`) has changed"
        if found.model.name == network.name:
            label = f"it is for another version of `{network.name}`{_changed(found, network)}"
        message = f"the calibration is not for this spec of `{network.name}`"
        raise fail("E0731", message, at, label=label, help=help)
    # Ranges of other weights would clip or waste levels, and nothing in the program would show it.
    if found.weights.digest != weights.digest:
        label = f"it is for {_origin(found.weights)}, these are {_origin(weights)}"
        help = "calibrate again with these weights, or give the others with --weights"
        message = "the calibration is for other weights"
        raise fail("E0732", message, at, label=label, help=help)


def _changed(found: CalibrationDocument, network: NetworkRecord) -> str:
    theirs, ours = found.model.params, network.params
    names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    if not names:
        return ""
    first = names[0]
    return f", with {first}={theirs.get(first, '?')} where this one has {ours.get(first, '?')}"


def _origin(weights: WeightsOrigin) -> str:
    named = weights.file or (
        f"random ones of seed {weights.seed}" if weights.seed is not None else ""
    )
    digest = weights.digest[:12]
    return f"{named} ({digest})" if named else f"weights of digest {digest}"


def _misfits(found: CalibrationDocument, ready: Model, name: str) -> Iterator[Diagnostic]:
    at, graph = whole_file(name), ready.graph
    help = "calibrate again: a file fits the graph of one version of tcc and of its `--passes`"

    def other(label: str) -> Diagnostic:
        return Diagnostic("E0733", "the calibration is for another graph", at, label, help=help)

    names = kept_values(graph)
    lacking = [value for value in names if value not in found.values]
    spare = [value for value in found.values if value not in names]
    if lacking or spare:
        yield other(f"it lacks `{lacking[0]}`" if lacking else f"`{spare[0]}` is not in the graph")
    elif not _told(found, ready):
        yield other("it was judged by other outputs")
    convolutions = {node.name for node in graph.nodes if isinstance(node.op, Conv)}
    for node in (*(set(found.rounded) - convolutions), *(set(found.factors) - set(graph.types))):
        yield other(f"`{node}` is not in the graph")
    for value, own in found.values.items():
        if not _is_scale(own.scale):
            yield Diagnostic("E0730", f"the scale of `{value}` is {own.scale:g}", at)
    for first, last in _torn(found, ready):
        yield Diagnostic("E0730", f"`{first}` and `{last}` need one scale", at)


def _torn(found: CalibrationDocument, ready: Model) -> Iterator[tuple[str, str]]:
    """Yield the ends of groups that need one scale and have several."""
    for group in scale_groups(ready.graph):
        # A file that was edited may tear a group: a concat of two scales has no integer form.
        kinds = {(v.scale, v.signed) for v in map(found.values.get, group) if v}
        if len(kinds) > 1:
            yield group[0], group[-1]


def _is_scale(number: float) -> bool:
    normal = isfinite(number) and number >= SMALLEST
    # JSON holds float64: what is no float32 was not written by us, and would be rounded in silence.
    return normal and number == float(np.float32(number))


def _told(found: CalibrationDocument, ready: Model) -> bool:
    """Whether what judged the candidates are the outputs of a model."""
    outputs = {o.name: o.meaning for o in judged_outputs(ready)}
    return all({n: one.kind for n, one in by.items()} == outputs for by in found.judged.values())


def _tensors(own: RoundedWeights) -> EncodedWeights:
    return EncodedWeights(_text(own.weight), _text(own.scale), _text(own.bias))


def _rounded(own: EncodedWeights, node: Node, ready: Model, name: str) -> RoundedWeights:
    shape = ready.weights[node.params[0]].shape
    weight = _tensor(own.weight, "|i1", shape, name, node.name)
    scale = _tensor(own.scale, "<f4", shape[:1], name, node.name)
    bias = _tensor(own.bias, "<i4", shape[:1], name, node.name)
    return RoundedWeights(weight, scale, bias)


def _text(array: NDArray[np.generic]) -> str:
    # One byte order in files, whatever the machine's.
    little = array.dtype.newbyteorder("<")
    return base64.b64encode(np.ascontiguousarray(array, little).tobytes()).decode()


def _tensor(text: str, kind: str, shape: tuple[int, ...], name: str, value: str) -> NDArray[Any]:
    """Return a tensor of a document in the machine's byte order."""
    dtype = np.dtype(kind)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        # What is no base64 then fails by its length: one message for both.
        data = b""
    if len(data) != dtype.itemsize * int(np.prod(shape)):
        label = f"the tensors of `{value}` do not have its shape"
        raise UserError(
            (Diagnostic("E0730", "the calibration file is damaged", whole_file(name), label),)
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
