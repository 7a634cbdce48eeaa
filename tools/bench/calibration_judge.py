"""Evaluate the 8-bit model of a method on unseen images."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from calibration_sets import BenchNetwork, BenchSet, Rows, compute_outputs
from numpy.typing import NDArray

from tcc.compiler import passes
from tcc.compiler.driver import pipeline
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import onnxruntime_session, output_comparison, output_quality

RunImages = Callable[[NDArray[np.uint8]], Rows]
"""Returns the first output of a model for images in uint8."""


class UnrunnableFileError(Exception):
    """A peer's file that the runtime refuses; the message is the runtime's."""


@dataclass(frozen=True, slots=True)
class SetQuality:
    """The quantization error and accuracy of a model on the images of a set.

    `loss` is (1 - mean cosine) x 10,000 of the raw outputs. `accuracy` and `float_accuracy` are
    shares of labelled images with a correct prediction, or None without labels.
    """

    images: int
    loss: float
    least_cosine: float
    agreement: float
    accuracy: float | None
    float_accuracy: float | None


def evaluate_set(
    network: BenchNetwork, file: Path, bench_set: BenchSet, fit_indices: Sequence[int]
) -> SetQuality:
    """Evaluate a model on a set, without its calibration images.

    Args:
        network: The network.
        file: The file that a method wrote: a calibration, an ONNX or a TFLite model.
        bench_set: The set.
        fit_indices: Indices of the calibration images in the set that they were drawn from.

    Raises:
        UnrunnableFileError: The runtime cannot run the file.
    """
    keep = np.ones(len(bench_set.images), bool)
    if bench_set.has_fit_images:
        keep[list(fit_indices)] = False
    expected = bench_set.expected[keep]
    outputs_found = _make_runner(network, file)(bench_set.images[keep]).reshape(expected.shape)
    (output, *_) = output_comparison.get_inference_outputs(network.model)
    quality = output_quality.measure_quality(output, expected, outputs_found, None)
    labelled = (classes := bench_set.classes[keep]) >= 0
    if quality.cosine is None or quality.least_cosine is None or quality.agreement is None:
        raise SystemExit(f"{network.name} has no output of class scores")
    return SetQuality(
        len(expected),
        (1 - quality.cosine) * 1e4,
        quality.least_cosine,
        quality.agreement,
        *(
            _compute_accuracy(rows[labelled], classes[labelled])
            for rows in (outputs_found, expected)
        ),
    )


def _compute_accuracy(rows: Rows, classes: NDArray[np.int64]) -> float | None:
    if not len(rows):
        return None
    return float((rows.reshape(len(rows), -1).argmax(1) == classes).mean())


def _make_runner(network: BenchNetwork, file: Path) -> RunImages:
    match file.suffix:
        case ".json":
            return _make_tcc_runner(network, file)
        case ".onnx":
            return _make_onnx_runner(network, file)
        case ".tflite":
            return _make_tflite_runner(network, file)
        case suffix:
            raise SystemExit(f"cannot run {suffix} files")


def _make_tcc_runner(network: BenchNetwork, file: Path) -> RunImages:
    weight_source = pipeline.read_weights(network.weights, network.spec.graph)
    model = passes.run(Model(network.spec.graph, weight_source.tensors), passes.INT8)
    document = calibration_document.read_document(file)
    program = quantize(model, calibration_file.decode_calibration(document, model, file.name))
    return lambda levels: compute_outputs(program, levels, optimised=True)


def _make_onnx_runner(network: BenchNetwork, file: Path) -> RunImages:
    # import after tcc, which switches its telemetry off
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    # Saturation on processors without VNNI is not a fault of the calibration.
    session = onnxruntime_session.create_session(file.read_bytes(), exact_products=True)
    name = network.source.name

    def run(levels: NDArray[np.uint8]) -> Rows:
        tensors = (preprocess.normalize(network.contract, image) for image in levels)
        try:
            return np.stack(
                [session.run(None, {name: tensor[None]})[0].reshape(-1) for tensor in tensors]
            )
        except Fail as error:
            raise UnrunnableFileError(str(error)[:200]) from error

    return run


def _make_tflite_runner(network: BenchNetwork, file: Path) -> RunImages:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (output_details, *_) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )

    def run_image(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        tensor = preprocess.normalize(network.contract, levels).transpose(1, 2, 0)[None]
        interpreter.set_tensor(source["index"], _quantize_input(tensor, source))
        interpreter.invoke()
        return _dequantize_output(
            interpreter.get_tensor(output_details["index"]), output_details
        ).reshape(-1)

    return lambda levels: np.stack([run_image(image) for image in levels])


def _quantize_input(tensor_values: NDArray[np.float32], tensor: dict[str, Any]) -> NDArray[Any]:
    scale, zero = tensor["quantization"]
    if tensor["dtype"] == np.float32:
        return tensor_values
    limits = np.iinfo(tensor["dtype"])
    codes = np.clip(np.rint(tensor_values / scale) + zero, limits.min, limits.max)
    quantized: NDArray[Any] = codes.astype(tensor["dtype"])
    return quantized


def _dequantize_output(codes: NDArray[Any], tensor: dict[str, Any]) -> NDArray[np.float32]:
    scale, zero = tensor["quantization"]
    if tensor["dtype"] == np.float32:
        return codes
    dequantized: NDArray[np.float32] = (codes.astype(np.float32) - zero) * np.float32(scale)
    return dequantized


def read_loss_interval(network: BenchNetwork, file: Path) -> tuple[float, float] | None:
    """Return the interval of the mean loss on unseen images that a calibration states.

    The unit is that of `SetQuality.loss`. None if the file states no interval.
    """
    if file.suffix != ".json":
        return None
    (output, *_) = output_comparison.get_inference_outputs(network.model)
    # Calibrations of older versions state no interval.
    expected = getattr(calibration_document.read_document(file), "expected", {}).get(output.name)
    return expected and (expected.low * 1e4, expected.high * 1e4)


def to_record(quality: SetQuality) -> dict[str, Any]:
    """Return the quality as a JSON record."""
    return asdict(quality)
