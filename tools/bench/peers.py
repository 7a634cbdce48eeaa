"""The peers of `calibration.py`: an fp32 ONNX model and images in, an 8-bit ONNX model out."""

import importlib.util
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from tcc.compiler.support.unhandled import UnhandledError

Images = Sequence[NDArray[np.float32]]

ONNXRUNTIME = {
    "onnxruntime MinMax u8": ("MinMax", "QUInt8"),
    "onnxruntime MinMax s8": ("MinMax", "QInt8"),
    "onnxruntime Percentile u8": ("Percentile", "QUInt8"),
    "onnxruntime Entropy u8": ("Entropy", "QUInt8"),
}
NAMES = (*ONNXRUNTIME, "nncf")


def absent(name: str) -> str | None:
    """Return what to say where a peer is not installed."""
    if name == "nncf" and importlib.util.find_spec("nncf") is None:
        return "nncf is not installed: pip install 'tcc-compiler[bench]'"
    return None


def quantized(name: str, model: onnx.ModelProto, images: Images) -> bytes:
    """Return a model that a peer quantised: 8-bit activations, weights per channel."""
    if name == "nncf":
        return _nncf(model, images)
    if name not in ONNXRUNTIME:
        raise UnhandledError("peer", name)
    return _onnxruntime(name, model, images)


def _onnxruntime(name: str, model: onnx.ModelProto, images: Images) -> bytes:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    method, kind = ONNXRUNTIME[name]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.left, None)
            return None if image is None else {model.graph.input[0].name: image[None]}

    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            result,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType[kind],
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )
        return result.read_bytes()


def _nncf(model: onnx.ModelProto, images: Images) -> bytes:
    import nncf

    nncf.set_log_level(logging.ERROR)
    name = model.graph.input[0].name
    dataset = nncf.Dataset([{name: image[None]} for image in images])
    found: bytes = nncf.quantize(model, dataset, subset_size=len(images)).SerializeToString()
    return found
