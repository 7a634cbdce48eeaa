"""Goldens: what an artifact must give for some inputs, from the bytes of an image on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tcc.compiler.bundle import agreement
from tcc.compiler.bundle.agreement import Tolerance
from tcc.compiler.bundle.manifest import Golden, Goldens
from tcc.compiler.bundle.manifest_checks import GOLDENS
from tcc.compiler.data import confined_images
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ir.types import DType
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.reference.float_program import Tensor
from tcc.compiler.support.diagnostics import Diagnostic, UserError
from tcc.compiler.zoo import shipped


@dataclass(frozen=True, slots=True)
class Case:
    """One input: the file it comes from (none where the input is no image), and its tensor."""

    source: str
    image: tuple[str, bytes] | None
    tensor: Tensor
    dtype: DType


def make(model: Model, precision: Precision = FP32) -> tuple[Goldens, Mapping[str, bytes]]:
    """Return the goldens of a model and their files by path in the bundle, for a precision.

    Raises:
        UserError: An output is not finite (E0508).
    """
    cases = _cases(model.graph.inputs[0])
    # Of the graph as written, before any pass: passes and target are judged together
    # (docs/decisions/0011-reference-executors.md).
    outputs = float_program.run(model, [case.tensor for case in cases])
    problems = tuple(p for found in outputs for p in _not_finite(model, found))
    if problems:
        raise UserError(problems[:1])
    return _listed(cases, outputs, float_program.NAME, agreement.allowed(precision))


def exact(program: Model, precision: Precision) -> tuple[Goldens, Mapping[str, bytes]]:
    """Return the goldens of an integer program, by its own executor, and their files."""
    cases = _cases(program.graph.inputs[0])
    outputs = integer_program.run(program, [case.tensor for case in cases])
    graph = program.graph
    layers, reach = integer_program.inexact(graph), integer_program.reach(graph)
    allowed = agreement.allowed(precision, layers, reach)
    return _listed(cases, outputs, integer_program.NAME, allowed)


def inputs(source: Input) -> list[Tensor]:
    """Return the tensors of the goldens of an input, in their order."""
    return [case.tensor for case in _cases(source)]


def _listed(
    cases: Sequence[Case],
    outputs: Sequence[Mapping[str, Tensor]],
    executor: str,
    allowed: Tolerance,
) -> tuple[Goldens, Mapping[str, bytes]]:
    files: dict[str, bytes] = {}
    listed = tuple(
        _golden(f"goldens/{number}", case, found, files)
        for number, (case, found) in enumerate(zip(cases, outputs, strict=True), 1)
    )
    return Goldens(executor, allowed, listed), files


def _golden(
    folder: str, case: Case, outputs: Mapping[str, Tensor], files: dict[str, bytes]
) -> Golden:
    image = None
    if case.image:
        image = f"{folder}/{case.image[0]}"
        files[image] = case.image[1]
    tensor = f"{folder}/input.bin"
    files[tensor] = _raw(case.tensor, case.dtype)
    paths = {name: f"{folder}/output_{index}.bin" for index, name in enumerate(outputs)}
    files.update({paths[name]: _raw(value, DType.F32) for name, value in outputs.items()})
    return Golden(folder.rpartition("/")[2], case.source, image, tensor, paths)


def _raw(tensor: Tensor, dtype: DType) -> bytes:
    # Without a header, so that C reads it with one `fread`.
    kept: bytes = tensor.astype(np.dtype(dtype.value).newbyteorder("<")).tobytes()
    return kept


def _cases(source: Input) -> Sequence[Case]:
    if source.preprocess is None:
        return [_noise_tensor(source, seed) for seed in range(GOLDENS)]
    channels, height, width = source.type.shape
    return [
        Case(
            text,
            (f"image{Path(name).suffix}", data),
            preprocess.apply(
                source.preprocess,
                confined_images.decode(data, name),
                (channels, height, width),
                name,
            ),
            source.type.dtype,
        )
        for text, name, data in _images(source.preprocess, height, width)
    ]


def _images(pre: Preprocess, height: int, width: int) -> list[tuple[str, str, bytes]]:
    """Return for each image where it is from, its file's name and its bytes.

    They are sample images; noise, where there are none or the contract takes one size alone.
    """
    files = _spread(shipped.samples())
    # Without a resize the image must have the network's very size, which no sample has.
    if preprocess.result_shape(pre) is None or len(files) < GOLDENS:
        return [("noise", "image.ppm", _noise_image(height, width, n)) for n in range(GOLDENS)]
    return [(f"sample image {p.parent.name}/{p.name}", p.name, p.read_bytes()) for p in files]


def _spread(samples: Sequence[Path]) -> list[Path]:
    """Return the first sample of each of the first folders."""
    # Backwards, so that the first sample of a folder is what stays.
    firsts = {path.parent: path for path in reversed(samples)}
    # Of different folders, since images of one class may well have one answer.
    return [firsts[folder] for folder in sorted(firsts)][:GOLDENS]


def _noise_image(height: int, width: int, seed: int) -> bytes:
    header = f"P6\n{width} {height}\n255\n".encode()
    return header + _noise(seed, height * width * 3)


def _noise_tensor(source: Input, seed: int) -> Case:
    values = np.frombuffer(_noise(seed, source.type.elements), np.uint8)
    tensor = (values.astype(np.float32) / np.float32(127.5)) - np.float32(1)
    return Case("noise", None, tensor.reshape(source.type.shape), source.type.dtype)


def _noise(seed: int, count: int) -> bytes:
    # Of a hash's output, which is the same in every version of every library.
    return hashlib.shake_256(f"tcc golden {seed}".encode()).digest(count)


def _not_finite(model: Model, outputs: Mapping[str, Tensor]) -> list[Diagnostic]:
    at = {node.name: node.at for node in model.graph.nodes}
    return [
        Diagnostic(
            "E0508",
            f"with these weights, output `{output.name}` is not finite",
            at[output.value],
            label="NaN or infinity for a sample image",
            help="look at the weights' magnitudes; the network overflows float32",
        )
        for output in model.graph.outputs
        if output.name in outputs and not np.isfinite(outputs[output.name]).all()
    ]
