"""How good the 8-bit model of a method is, on images that it has not seen."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from calibration_sets import BenchNetwork, BenchSet, Rows, outputs
from numpy.typing import NDArray

from tcc.compiler import passes
from tcc.compiler.driver import pipeline
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import onnxruntime_session, output_comparison, output_quality

Run = Callable[[NDArray[np.uint8]], Rows]
"""Gives the first output of a model for images as levels."""


class UnrunnableFileError(Exception):
    """A peer's file that the runtime refuses, with its words."""


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """What a model loses on the images of a set.

    `loss` is (1 - mean cosine) x 10,000 of the raw outputs; `accuracy` and `float_accuracy` are
    shares of labelled images whose first class is right, None where there are none.
    """

    images: int
    loss: float
    least_cosine: float
    agreement: float
    accuracy: float | None
    float_accuracy: float | None


def judged(network: BenchNetwork, file: Path, one: BenchSet, drawn: Sequence[int]) -> JudgedSet:
    """Return what a model loses on a set, without the images that it was calibrated on.

    Args:
        network: The network.
        file: What a method wrote: a calibration, an ONNX or a TFLite model.
        one: The set.
        drawn: Places of the calibration images in the set that they were drawn from.

    Raises:
        UnrunnableFileError: The runtime does not run it.
    """
    keep = np.ones(len(one.levels), bool)
    if one.drawn:
        keep[list(drawn)] = False
    expected = one.expected[keep]
    found = _runner(network, file)(one.levels[keep]).reshape(expected.shape)
    (output, *_) = output_comparison.get_inference_outputs(network.model)
    quality = output_quality.measure_quality(output, expected, found, None)
    known = (classes := one.classes[keep]) >= 0
    if quality.cosine is None or quality.least_cosine is None or quality.agreement is None:
        raise SystemExit(f"{network.name} decides nothing among classes")
    return JudgedSet(
        len(expected),
        (1 - quality.cosine) * 1e4,
        quality.least_cosine,
        quality.agreement,
        *(_accuracy(rows[known], classes[known]) for rows in (found, expected)),
    )


def _accuracy(rows: Rows, classes: NDArray[np.int64]) -> float | None:
    if not len(rows):
        return None
    return float((rows.reshape(len(rows), -1).argmax(1) == classes).mean())


def _runner(network: BenchNetwork, file: Path) -> Run:
    match file.suffix:
        case ".json":
            return _ours(network, file)
        case ".onnx":
            return _onnx(network, file)
        case ".tflite":
            return _tflite(network, file)
        case other:
            raise SystemExit(f"nothing runs {other} files")


def _ours(network: BenchNetwork, file: Path) -> Run:
    given = pipeline.read_weights(network.weights, network.spec.graph)
    model = passes.run(Model(network.spec.graph, given.tensors), passes.INT8)
    document = calibration_document.read_document(file)
    program = quantize(model, calibration_file.decode_calibration(document, model, file.name))
    return lambda levels: outputs(program, levels, optimised=True)


def _onnx(network: BenchNetwork, file: Path) -> Run:
    # After tcc, which switches its telemetry off.
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    # What saturates on processors without VNNI is no fault of a calibration.
    session = onnxruntime_session.create_session(file.read_bytes(), exact_products=True)
    name = network.source.name

    def run(levels: NDArray[np.uint8]) -> Rows:
        tensors = (preprocess.normalize(network.contract, each) for each in levels)
        try:
            return np.stack([session.run(None, {name: x[None]})[0].reshape(-1) for x in tensors])
        except Fail as error:
            raise UnrunnableFileError(str(error)[:200]) from error

    return run


def _tflite(network: BenchNetwork, file: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result, *_) = interpreter.get_input_details(), interpreter.get_output_details()

    def one(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = preprocess.normalize(network.contract, levels).transpose(1, 2, 0)[None]
        interpreter.set_tensor(source["index"], _stored(x, source))
        interpreter.invoke()
        return _real(interpreter.get_tensor(result["index"]), result).reshape(-1)

    return lambda levels: np.stack([one(each) for each in levels])


def _stored(values: NDArray[np.float32], tensor: dict[str, Any]) -> NDArray[Any]:
    scale, zero = tensor["quantization"]
    if tensor["dtype"] == np.float32:
        return values
    limits = np.iinfo(tensor["dtype"])
    levels = np.clip(np.rint(values / scale) + zero, limits.min, limits.max)
    stored: NDArray[Any] = levels.astype(tensor["dtype"])
    return stored


def _real(values: NDArray[Any], tensor: dict[str, Any]) -> NDArray[np.float32]:
    scale, zero = tensor["quantization"]
    if tensor["dtype"] == np.float32:
        return values
    real: NDArray[np.float32] = (values.astype(np.float32) - zero) * np.float32(scale)
    return real


def stated(network: BenchNetwork, file: Path) -> tuple[float, float] | None:
    """Return between what losses the mean of unseen images lies, as a calibration states it.

    They are in the unit of `JudgedSet.loss`; None where a file states nothing.
    """
    if file.suffix != ".json":
        return None
    (output, *_) = output_comparison.get_inference_outputs(network.model)
    # Calibrations of older versions state nothing.
    expected = getattr(calibration_document.read_document(file), "expected", {}).get(output.name)
    return expected and (expected.low * 1e4, expected.high * 1e4)


def record(found: JudgedSet) -> dict[str, Any]:
    """Return it as JSON has it."""
    return asdict(found)
