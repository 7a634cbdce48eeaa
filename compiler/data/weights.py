"""Read, write and initialize the weight tensors of a graph, named by their paths in the spec.

Every tensor is float32 and has the shape that its op requires. All tensors are checked when they
are read, so that later stages never see a missing tensor, a NaN or a negative variance.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod, sqrt
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from tcc.compiler.data import safetensors_file
from tcc.compiler.data.safetensors_file import FLOATS
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.op import Init, Param
from tcc.compiler.ir.types import Shape
from tcc.compiler.ops.norm import BatchNorm
from tcc.compiler.support.atomic_files import write_file
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    Span,
    UserError,
    find_nearest_name,
    make_file_span,
)

MAX_LISTED = 50
"""Maximum number of tensors that a message lists."""
FEW_TENSORS = 3
"""Minimum number of missing tensors for E1410, and the number of tensors it lists of each kind."""


def format_shape(shape: Shape) -> str:
    """Return a tensor's shape as diagnostics print it."""
    return "x".join(map(str, shape)) or "scalar"


def find_misfits(shapes: Mapping[str, Shape], graph: Graph, path: Path) -> Iterator[Diagnostic]:
    """Yield the errors in the names and shapes of a file's tensors.

    Args:
        shapes: The shapes of the file's tensors, by name.
        graph: The network.
        path: The file.
    """
    span = make_file_span(str(path))
    missing = {n: p for n, p in graph.params.items() if n not in shapes}
    unknown = {n: s for n, s in sorted(shapes.items()) if n not in graph.params}
    owners = find_owners(graph)
    reshaped = [n for n, p in graph.params.items() if shapes.get(n, p.shape) != p.shape]
    if len(missing) >= FEW_TENSORS and 2 * (len(missing) + len(reshaped)) > len(graph.params):
        yield _make_other_network_error(graph, span, (list(missing), reshaped, list(unknown)))
        return
    if missing:
        yield Diagnostic(
            "E0502",
            f"{len(missing)} of {len(graph.params)} weights of {graph.name} are missing",
            span,
            notes=_list_notes(
                [
                    _describe_missing(n, missing[n], owners[n], unknown)
                    for n in _limit_names(missing)
                ],
                missing,
            ),
            help="check that the weights belong to this spec and to these parameters (`--set`)",
        )
    if unknown:
        yield Diagnostic(
            "E0503",
            f"{len(unknown)} tensors of the file are not weights of {graph.name}",
            span,
            notes=_list_notes(
                [_describe_nearest(n, unknown[n], missing) for n in _limit_names(unknown)], unknown
            ),
            help="if the names are those of another project, use `tcc import --spec`",
        )
    for name in reshaped:
        message = (
            f"{name} has shape {format_shape(shapes[name])}, not "
            f"{format_shape(graph.params[name].shape)}"
        )
        help = "check that the weights were trained with these parameters of the spec (`--set`)"
        yield Diagnostic("E0504", message, _locate(owners[name], span), "this layer", help=help)


def _make_other_network_error(
    graph: Graph, span: Span, kinds: tuple[list[str], list[str], list[str]]
) -> Diagnostic:
    """Return the error of weights that mostly do not fit the network, with a few of each kind."""
    missing, reshaped, _ = kinds
    labels = ("missing", "with another shape", f"not in {graph.name}")
    notes = [
        f"{len(names)} {label}: "
        f"{', '.join(names[:FEW_TENSORS])}{', ...' if len(names) > FEW_TENSORS else ''}"
        for names, label in zip(kinds, labels, strict=True)
        if names
    ]
    count = len(missing) + len(reshaped)
    return Diagnostic(
        "E1410",
        f"these weights do not belong to {graph.name}, or have other names: "
        f"{count} of its {len(graph.params)} tensors do not fit",
        span,
        notes=tuple(notes),
        help="give the weights of this spec and of its parameters (`--set`); if the names are those"
        " of another project, use `tcc import --spec`",
    )


def _limit_names(names: Mapping[str, object]) -> list[str]:
    return list(names)[:MAX_LISTED]


def _list_notes(lines: Sequence[str], all_of_them: Mapping[str, object]) -> tuple[str, ...]:
    unlisted_count = len(all_of_them) - len(lines)
    return (*lines, *([f"... and {unlisted_count:,} more"] if unlisted_count else []))


def _describe_missing(name: str, param: Param, node: Node, unknown: Mapping[str, Shape]) -> str:
    at = f", {node.at}" if node.at.line else ""
    return f"{_describe_nearest(name, param.shape, unknown)}{at}"


def _describe_nearest(name: str, shape: Shape, candidates: Mapping[str, object]) -> str:
    # The search is expensive, and with many candidates its result does not help.
    nearest_name = find_nearest_name(name, set(candidates)) if len(candidates) <= 100 else None
    return f"{name} ({format_shape(shape)})" + (f", like {nearest_name}" if nearest_name else "")


def find_owners(graph: Graph) -> dict[str, Node]:
    """Return the first node that reads each weight."""
    owners: dict[str, Node] = {}
    for node in graph.nodes:
        for name in node.params:
            owners.setdefault(name, node)
    return owners


def _locate(node: Node, fallback: Span) -> Span:
    return node.at if node.at.line else fallback


Weights = Mapping[str, NDArray[np.float32]]
"""Tensors by name, such as `dense_1/conv.weight`."""
Warn = Callable[[Diagnostic], None]
"""Callback for warnings."""

SPEC_KEY = "tcc.spec"
"""Metadata key with the spec of a weights file; it also marks the file as written by tcc."""
BLOCK_NUMBERS = 1 << 20
"""Random numbers per block, to bound the memory; the values do not depend on it."""


def ignore_warning(_: Diagnostic) -> None:
    """Drop a warning."""


def initialize_random(graph: Graph, seed: int = 0, only: Sequence[str] | None = None) -> Weights:
    """Return initial weights for training, identical on every machine.

    Each tensor has its own random stream, seeded by its name: adding a layer does not change the
    weights of other layers.

    Args:
        graph: The network.
        seed: Seed of the streams, in addition to each tensor's name.
        only: Names of the tensors to return; None returns all.
    """
    names = graph.params if only is None else only
    return {name: _initialize_tensor(name, graph.params[name], seed) for name in names}


def initialize_he(graph: Graph, seed: int = 0) -> Weights:
    """Return random weights that preserve the signal's magnitude through layers with ReLU.

    PyTorch's initialization, as in `initialize_random`, reduces it by a factor of 2.4 per layer: a
    deep network without batch norm then does not learn for many steps. Biases start at 0. He et
    al., "Delving Deep into Rectifiers" (arXiv:1502.01852, equation 10).
    """
    tensors = dict(initialize_random(graph, seed))
    for name, param in graph.params.items():
        match param.init:
            case Init.KAIMING:
                vector = len(param.shape) < 2
                tensors[name] = tensors[name] * np.float32(0 if vector else sqrt(6))
            case Init.ZEROS | Init.ONES:
                pass
            case _:
                assert_never(param.init)
    return tensors


def _initialize_tensor(name: str, param: Param, seed: int) -> NDArray[np.float32]:
    match param.init:
        case Init.ZEROS:
            return np.zeros(param.shape, np.float32)
        case Init.ONES:
            return np.ones(param.shape, np.float32)
        case Init.KAIMING:
            # PyTorch's default for layers: `kaiming_uniform_` with a = sqrt(5) has this bound.
            return sample_uniform(param.shape, 1 / sqrt(param.fan_in), f"{seed}:{name}")
        case _:
            assert_never(param.init)


def sample_uniform(shape: Shape, bound: float, key: str) -> NDArray[np.float32]:
    """Return random numbers, uniform in [-bound, bound), from the stream of a key.

    They are computed from the raw bits of PCG64, because NumPy guarantees only these to be stable
    across versions.

    Args:
        shape: The tensor's shape.
        bound: The largest magnitude.
        key: The name of the stream.
    """
    numbers = np.empty(prod(shape), np.float32)
    stream = np.random.PCG64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
    for start in range(0, numbers.size, BLOCK_NUMBERS):
        part = numbers[start : start + BLOCK_NUMBERS]
        # 24 bits, the precision of float32: one of 2**24 evenly spaced values.
        unit = (stream.random_raw(part.size) >> np.uint64(40)).astype(np.float64) * 2.0**-23
        part[:] = (unit - 1.0) * bound
    return numbers.reshape(shape)


def make_placeholders(graph: Graph) -> Weights:
    """Return placeholder weights that take no memory, for when only the graph matters.

    Each tensor is filled with a different number, so that no two tensors are equal.
    """
    return {
        name: np.broadcast_to(np.float32(1 + index / 1024), param.shape)
        for index, (name, param) in enumerate(graph.params.items())
    }


def encode(weights: Weights, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return weights encoded as safetensors; the bytes depend only on tensors and metadata."""
    tensors = {k: np.ascontiguousarray(v, np.float32) for k, v in sorted(weights.items())}
    encoded = save(tensors)
    (size,) = struct.unpack_from("<Q", encoded)
    # The library's order of metadata changes from run to run, and its header is invalid if there
    # are metadata but no tensors.
    header = json.loads(encoded[8 : 8 + size]) | {"__metadata__": dict(metadata or {})}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    # The format pads the header with spaces, so that tensors start at a multiple of 8.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + encoded[8 + size :]


def digest(weights: Weights) -> str:
    """Return the SHA-256 of names, shapes and values, as hexadecimal digits."""
    return hashlib.sha256(encode(weights)).hexdigest()


def write(path: Path, weights: Weights, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights as safetensors, atomically.

    Raises:
        UserError: The file cannot be written.
        MachineError: The disk is full or broken.
    """
    write_file(path, encode(weights, metadata))


def read_weights(path: Path, graph: Graph, warn: Warn = ignore_warning) -> Weights:
    """Return the weights of a graph from a safetensors file.

    float16, bfloat16 and float64 are converted to float32, with a warning.

    Args:
        path: A safetensors file.
        graph: The network.
        warn: Callback for warnings.

    Returns:
        float32 tensors by name, with the shapes that the ops require.

    Raises:
        UserError: The file cannot be read (E0501); tensors are missing (E0502) or unknown (E0503),
            have another shape (E0504) or type (E0505), values that are not finite (E0506) or
            invalid variances (E0507), or most tensors do not fit (E1410).
    """
    file = safetensors_file.open_safetensors(path)
    dtypes = {name: part.dtype for name, part in file.parts.items()}
    shapes = {name: part.shape for name, part in file.parts.items()}
    problems = [*find_misfits(shapes, graph, path), *_find_wrong_types(dtypes, graph)]
    if problems:
        raise UserError(tuple(problems))
    for notice in _report_conversions({name: dtypes[name] for name in graph.params}, path):
        warn(notice)
    return check_weights({name: file.read_tensor(name) for name in graph.params}, graph)


def check_weights(tensors: Mapping[str, NDArray[Any]], graph: Graph) -> Weights:
    """Return tensors as float32 weights of a graph; their names and shapes must match it.

    Raises:
        UserError: A value is NaN or infinite (E0506), or a variance is invalid (E0507).
    """
    with np.errstate(over="ignore"):  # float64 values that overflow float32 are reported below
        weights = {name: np.asarray(tensors[name], np.float32) for name in graph.params}
    problems = [
        p for name, node in find_owners(graph).items() for p in _find_invalid(name, node, weights)
    ]
    if problems:
        raise UserError(tuple(problems))
    return weights


def _find_wrong_types(dtypes: Mapping[str, str], graph: Graph) -> Iterator[Diagnostic]:
    for name, node in find_owners(graph).items():
        if dtypes.get(name, "F32") not in FLOATS:
            message = f"{name} has the type {dtypes[name]}"
            help = "save it as float32 (float16, bfloat16 and float64 are converted)"
            yield Diagnostic("E0505", message, node.at, "this layer needs floats", help=help)


def _report_conversions(dtypes: Mapping[str, str], path: Path) -> Iterator[Diagnostic]:
    for kind, dtype_name in FLOATS.items():
        names = [name for name, dtype in dtypes.items() if dtype == kind != "F32"]
        if names:
            some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            message = f"{len(names)} tensors are {dtype_name} and are converted to float32: {some}"
            yield Diagnostic("E0505", message, make_file_span(str(path)), severity="warning")


def _find_invalid(name: str, node: Node, weights: Weights) -> Iterator[Diagnostic]:
    tensor = weights[name]
    bad = tensor.size - int(np.count_nonzero(np.isfinite(tensor)))
    if bad:
        nans = int(np.count_nonzero(np.isnan(tensor)))
        label = f"in {node.name}: {nans} are NaN, {bad - nans} are infinite"
        message = f"{bad} of {tensor.size} values of {name} are not finite"
        help = "the training diverged or the file is damaged: use an earlier checkpoint"
        yield Diagnostic("E0506", message, node.at, label, help=help)
    # Parameters of a batch norm: weight, bias, mean and variance.
    elif isinstance(node.op, BatchNorm) and name == node.params[3]:
        low = float(tensor.min())
        # The square root of a negative sum would be NaN; a sum of zero gives an infinite factor.
        if low + node.op.eps <= 0:
            label = f"the smallest is {low:g}, and eps is {node.op.eps:g}"
            help = "check how the file was created, and import it again"
            yield Diagnostic("E0507", f"{name} has invalid variances", node.at, label, help=help)
