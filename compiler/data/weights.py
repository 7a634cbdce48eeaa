"""Weight tensors of a graph, by their paths in the spec: safetensors in and out, and random ones.

Every tensor is float32 and has the shape its op asks for; what is read is checked whole, so that
later stages never meet a missing tensor, a NaN or a negative variance.
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

from tcc.compiler.data import safetensors_file, weight_misfits
from tcc.compiler.data.safetensors_file import FLOATS
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.op import Init, Param
from tcc.compiler.ir.types import Shape
from tcc.compiler.ops.norm import BatchNorm
from tcc.compiler.support.atomic_files import write_file
from tcc.compiler.support.diagnostics import Diagnostic, UserError, whole_file

Weights = Mapping[str, NDArray[np.float32]]
"""Tensors by name, such as `dense_1/conv.weight`."""
Warn = Callable[[Diagnostic], None]
"""Told what is worth knowing but no error."""

SPEC_KEY = "tcc.spec"
"""The metadata of a weights file that says which spec it is for, and that it is ours."""
BLOCK = 1 << 20
"""Random numbers made at a time, which bounds the memory; no stream depends on it."""


def quiet(_: Diagnostic) -> None:
    """Drop a warning."""


def random(graph: Graph, seed: int = 0, only: Sequence[str] | None = None) -> Weights:
    """Return weights as at the start of training, equal on every machine; `only` those named.

    Each tensor has a stream of its own, seeded by its name, so that one more layer changes
    no other's weights.

    Args:
        graph: The network.
        seed: What the numbers follow from, with each tensor's name.
        only: The tensors that are wanted; None is all.
    """
    names = graph.params if only is None else only
    return {name: _fresh(name, graph.params[name], seed) for name in names}


def he(graph: Graph, seed: int = 0) -> Weights:
    """Return random weights under which a signal keeps its size through layers with ReLU.

    PyTorch's own start, as `random` has it, makes it smaller by a factor of 2.4 with each such
    layer: a deep network without batch norm then learns nothing for long. He et al., "Delving Deep
    into Rectifiers" (arXiv:1502.01852, equation 10); biases begin at 0.
    """
    found = dict(random(graph, seed))
    for name, param in graph.params.items():
        match param.init:
            case Init.KAIMING:
                vector = len(param.shape) < 2
                found[name] = found[name] * np.float32(0 if vector else sqrt(6))
            case Init.ZEROS | Init.ONES:
                pass
            case _:
                assert_never(param.init)
    return found


def _fresh(name: str, param: Param, seed: int) -> NDArray[np.float32]:
    match param.init:
        case Init.ZEROS:
            return np.zeros(param.shape, np.float32)
        case Init.ONES:
            return np.ones(param.shape, np.float32)
        case Init.KAIMING:
            # As PyTorch's layers begin: `kaiming_uniform_` with a = sqrt(5) has this bound.
            return uniform(param.shape, 1 / sqrt(param.fan_in), f"{seed}:{name}")
        case _:
            assert_never(param.init)


def uniform(shape: Shape, bound: float, key: str) -> NDArray[np.float32]:
    """Return numbers evenly spread over [-bound, bound), drawn from a stream of that key.

    Taken from the bits of PCG64 themselves, since numpy promises those alone to stay as they are.

    Args:
        shape: Of the tensor.
        bound: How far from zero they reach.
        key: What names the stream.
    """
    values = np.empty(prod(shape), np.float32)
    stream = np.random.PCG64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
    for start in range(0, values.size, BLOCK):
        part = values[start : start + BLOCK]
        # 24 bits, as many as float32 has: every number is one of 2**24 that lie evenly.
        unit = (stream.random_raw(part.size) >> np.uint64(40)).astype(np.float64) * 2.0**-23
        part[:] = (unit - 1.0) * bound
    return values.reshape(shape)


def placeholders(graph: Graph) -> Weights:
    """Return weights that stand for any others, without memory, where only the graph matters.

    Each tensor holds one number that no other one does, so that nothing takes two for equal.
    """
    return {
        name: np.broadcast_to(np.float32(1 + index / 1024), param.shape)
        for index, (name, param) in enumerate(graph.params.items())
    }


def encode(weights: Weights, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return weights as safetensors: the same bytes for the same tensors and metadata."""
    tensors = {k: np.ascontiguousarray(v, np.float32) for k, v in sorted(weights.items())}
    data = save(tensors)
    (size,) = struct.unpack_from("<Q", data)
    # The library lists metadata in an order that changes from run to run, and writes no valid
    # header where there are no tensors beside it.
    header = json.loads(data[8 : 8 + size]) | {"__metadata__": dict(metadata or {})}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    # The format fills the header with spaces, so that tensors begin at a multiple of 8.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def digest(weights: Weights) -> str:
    """Return the SHA-256 of names, shapes and values, as hexadecimal digits."""
    return hashlib.sha256(encode(weights)).hexdigest()


def write(path: Path, weights: Weights, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights as safetensors, whole or not at all.

    Raises:
        UserError: The file cannot be written.
        MachineError: The disk is full or broken.
    """
    write_file(path, encode(weights, metadata))


def read(path: Path, graph: Graph, warn: Warn = quiet) -> Weights:
    """Return the weights of a graph from a safetensors file.

    Reads the tensors that the graph names and no others. float16, bfloat16 and float64 become
    float32, and `warn` is told.

    Args:
        path: A safetensors file.
        graph: The network.
        warn: Told what is worth knowing, and no error.

    Returns:
        float32 tensors by name, of the shapes that the ops ask for.

    Raises:
        UserError: The file cannot be read (E0501); tensors are missing (E0502), unknown (E0503),
            of another shape (E0504) or type (E0505), not finite (E0506) or no variance (E0507), or
            most do not fit (E1410).
    """
    file = safetensors_file.read(path)
    dtypes = {name: part.dtype for name, part in file.parts.items()}
    shapes = {name: part.shape for name, part in file.parts.items()}
    problems = [*weight_misfits.find_misfits(shapes, graph, path), *_wrong_types(dtypes, graph)]
    if problems:
        raise UserError(tuple(problems))
    for notice in _conversions({name: dtypes[name] for name in graph.params}, path):
        warn(notice)
    return checked({name: file.values(name) for name in graph.params}, graph)


def checked(tensors: Mapping[str, NDArray[Any]], graph: Graph) -> Weights:
    """Return tensors as float32 weights of a graph, which they name and fit.

    Raises:
        UserError: A value is NaN or infinite (E0506), or a variance negative (E0507).
    """
    with np.errstate(over="ignore"):  # float64 too large for float32 is found as infinite below
        weights = {name: np.asarray(tensors[name], np.float32) for name in graph.params}
    problems = [
        p
        for name, node in weight_misfits.find_owners(graph).items()
        for p in _unfit(name, node, weights)
    ]
    if problems:
        raise UserError(tuple(problems))
    return weights


def _wrong_types(dtypes: Mapping[str, str], graph: Graph) -> Iterator[Diagnostic]:
    for name, node in weight_misfits.find_owners(graph).items():
        if dtypes.get(name, "F32") not in FLOATS:
            message = f"{name} holds {dtypes[name]} numbers"
            help = "store float32 (float16, bfloat16 and float64 are converted)"
            yield Diagnostic("E0505", message, node.at, "this layer needs floats", help=help)


def _conversions(dtypes: Mapping[str, str], path: Path) -> Iterator[Diagnostic]:
    for kind, word in FLOATS.items():
        names = [name for name, dtype in dtypes.items() if dtype == kind != "F32"]
        if names:
            some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            message = f"{len(names)} tensors are {word} and become float32: {some}"
            yield Diagnostic("E0505", message, whole_file(str(path)), severity="warning")


def _unfit(name: str, node: Node, weights: Weights) -> Iterator[Diagnostic]:
    values = weights[name]
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        nans = int(np.count_nonzero(np.isnan(values)))
        label = f"of {node.name}: {nans} are NaN, {bad - nans} infinite"
        message = f"{name} has {bad} of {values.size} values that are not finite"
        help = "the training diverged, or the file is damaged; take an earlier checkpoint"
        yield Diagnostic("E0506", message, node.at, label, help=help)
    # Its parameters are weight, bias, mean and variance.
    elif isinstance(node.op, BatchNorm) and name == node.params[3]:
        low = float(values.min())
        # The root of a sum below zero would be NaN, at zero the factor infinite.
        if low + node.op.eps <= 0:
            label = f"the smallest is {low:g}, eps is {node.op.eps:g}"
            yield Diagnostic("E0507", f"{name} has impossible variances", node.at, label)
