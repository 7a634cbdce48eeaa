"""Goldens: input images and the outputs that an artifact must give for them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tcc.compiler.bundle import agreement
from tcc.compiler.bundle.agreement import Tolerance
from tcc.compiler.bundle.manifest import Golden, Goldens
from tcc.compiler.bundle.manifest_checks import GOLDEN_COUNT
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
class GoldenInput:
    """One input: its source, its image file (None if the input is no image), and its tensor."""

    source: str
    image: tuple[str, bytes] | None
    tensor: Tensor
    dtype: DType


def build_goldens(model: Model, precision: Precision = FP32) -> tuple[Goldens, Mapping[str, bytes]]:
    """Return the goldens of a model for a precision, and their files by path in the bundle.

    Raises:
        UserError: An output is not finite (E0508).
    """
    cases = _build_inputs(model.graph.inputs[0])
    # From the graph before any pass, so that the goldens check passes and target together
    # (docs/decisions/0011-reference-executors.md).
    outputs = float_program.run(model, [case.tensor for case in cases])
    problems = tuple(p for case_outputs in outputs for p in _find_nonfinite(model, case_outputs))
    if problems:
        raise UserError(problems[:1])
    return _encode_goldens(cases, outputs, float_program.NAME, agreement.get_tolerance(precision))


def build_exact_goldens(
    program: Model, precision: Precision
) -> tuple[Goldens, Mapping[str, bytes]]:
    """Return the goldens of an integer program, from its reference executor, and their files."""
    cases = _build_inputs(program.graph.inputs[0])
    outputs = integer_program.run(program, [case.tensor for case in cases])
    graph = program.graph
    inexact_layers, float_reach = (
        integer_program.find_inexact_nodes(graph),
        integer_program.compute_float_reach(graph),
    )
    tolerance = agreement.get_tolerance(precision, inexact_layers, float_reach)
    return _encode_goldens(cases, outputs, integer_program.NAME, tolerance)


def list_input_tensors(network_input: Input) -> list[Tensor]:
    """Return the golden input tensors of an input, in order."""
    return [case.tensor for case in _build_inputs(network_input)]


def _encode_goldens(
    cases: Sequence[GoldenInput],
    outputs: Sequence[Mapping[str, Tensor]],
    executor: str,
    tolerance: Tolerance,
) -> tuple[Goldens, Mapping[str, bytes]]:
    files: dict[str, bytes] = {}
    golden_cases = tuple(
        _encode_golden(f"goldens/{number}", case, case_outputs, files)
        for number, (case, case_outputs) in enumerate(zip(cases, outputs, strict=True), 1)
    )
    return Goldens(executor, tolerance, golden_cases), files


def _encode_golden(
    folder: str, case: GoldenInput, outputs: Mapping[str, Tensor], files: dict[str, bytes]
) -> Golden:
    image = None
    if case.image:
        image = f"{folder}/{case.image[0]}"
        files[image] = case.image[1]
    tensor = f"{folder}/input.bin"
    files[tensor] = _encode_tensor(case.tensor, case.dtype)
    paths = {name: f"{folder}/output_{index}.bin" for index, name in enumerate(outputs)}
    files.update({paths[name]: _encode_tensor(array, DType.F32) for name, array in outputs.items()})
    return Golden(folder.rpartition("/")[2], case.source, image, tensor, paths)


def _encode_tensor(tensor: Tensor, dtype: DType) -> bytes:
    # No header: C reads the file with one `fread`.
    encoded: bytes = tensor.astype(np.dtype(dtype.value).newbyteorder("<")).tobytes()
    return encoded


def _build_inputs(network_input: Input) -> Sequence[GoldenInput]:
    if network_input.preprocess is None:
        return [_generate_noise_tensor(network_input, seed) for seed in range(GOLDEN_COUNT)]
    channels, height, width = network_input.type.shape
    return [
        GoldenInput(
            description,
            (f"image{Path(name).suffix}", content),
            preprocess.apply(
                network_input.preprocess,
                confined_images.decode(content, name),
                (channels, height, width),
                name,
            ),
            network_input.type.dtype,
        )
        for description, name, content in _list_images(network_input.preprocess, height, width)
    ]


def _list_images(pre: Preprocess, height: int, width: int) -> list[tuple[str, str, bytes]]:
    """Return the source, file name and bytes of each image.

    They are sample images, or noise if there are no samples or the contract has no resize.
    """
    files = _select_samples(shipped.list_samples())
    # Without a resize the image must have exactly the network's size, and no sample has it.
    if preprocess.compute_output_shape(pre) is None or len(files) < GOLDEN_COUNT:
        return [
            ("noise", "image.ppm", _generate_noise_image(height, width, n))
            for n in range(GOLDEN_COUNT)
        ]
    return [(f"sample image {p.parent.name}/{p.name}", p.name, p.read_bytes()) for p in files]


def _select_samples(samples: Sequence[Path]) -> list[Path]:
    """Return the first sample of each of the first folders."""
    # In reverse, so that the first sample of each folder remains.
    sample_by_folder = {path.parent: path for path in reversed(samples)}
    # From different folders: images of one class may give the same outputs.
    return [sample_by_folder[folder] for folder in sorted(sample_by_folder)][:GOLDEN_COUNT]


def _generate_noise_image(height: int, width: int, seed: int) -> bytes:
    header = f"P6\n{width} {height}\n255\n".encode()
    return header + _generate_noise(seed, height * width * 3)


def _generate_noise_tensor(network_input: Input, seed: int) -> GoldenInput:
    noise_bytes = np.frombuffer(_generate_noise(seed, network_input.type.elements), np.uint8)
    tensor = (noise_bytes.astype(np.float32) / np.float32(127.5)) - np.float32(1)
    return GoldenInput(
        "noise", None, tensor.reshape(network_input.type.shape), network_input.type.dtype
    )


def _generate_noise(seed: int, count: int) -> bytes:
    # From a hash, which gives the same bytes in every version of every library.
    return hashlib.shake_256(f"tcc golden {seed}".encode()).digest(count)


def _find_nonfinite(model: Model, outputs: Mapping[str, Tensor]) -> list[Diagnostic]:
    span_by_node = {node.name: node.at for node in model.graph.nodes}
    return [
        Diagnostic(
            "E0508",
            f"with these weights, output `{output.name}` is not finite",
            span_by_node[output.value],
            label="NaN or infinity for a sample image",
            help="the network overflows float32: check the magnitudes of the weights",
        )
        for output in model.graph.outputs
        if output.name in outputs and not np.isfinite(outputs[output.name]).all()
    ]
