"""The configurations of a package, from the input contract of its network."""

from collections.abc import Mapping
from typing import Literal

from tcc.backends.pulsar.calibration_data import takes_levels
from tcc.backends.pulsar.contract import color_word
from tcc.backends.pulsar.pulsar2.schema import (
    BuildConfig,
    CalibrationInput,
    Colours,
    Compiler,
    InputProcessor,
    Quant,
)
from tcc.compiler.ir.graph import Input

ARCHIVE = "calibration.tar"
COMPILED = "compiled.axmodel"
ChipName = Literal["AX650", "AX620E"]
HARDWARE: Mapping[str, ChipName] = {"AX650": "AX650", "AX620E": "AX620E"}


def quantised(source: Input, hardware: ChipName, samples: int) -> BuildConfig:
    """Return the configuration of a network that has our scales, in `model_qdq.onnx`.

    `check` and the biases are those of the maker's own configuration for such networks.
    """
    quant = Quant(_inputs(source, samples), "MinMax", True, "EndToEnd", "Reference", "FP32")
    return _config("model_qdq.onnx", "QuantONNX", hardware, quant, source)


def native(source: Input, hardware: ChipName, samples: int) -> BuildConfig:
    """Return the configuration of the float network, `model.onnx`, which the tool quantises."""
    # MSE, as for Pulsar: a range that one far value does not move.
    quant = Quant(_inputs(source, samples), "MSE", True, "EndToEnd", "Reference")
    return _config("model.onnx", "ONNX", hardware, quant, source)


def _config(
    file: str,
    kind: Literal["ONNX", "QuantONNX"],
    hardware: ChipName,
    quant: Quant,
    source: Input,
) -> BuildConfig:
    check = Compiler(2 if kind == "QuantONNX" else 0)
    arriving = (_processor(source),)
    return BuildConfig(file, "out", COMPILED, kind, hardware, "NPU1", quant, arriving, check)


def _inputs(source: Input, samples: int) -> tuple[CalibrationInput, ...]:
    """Return what is calibrated with; images are read in the order of the network's colours."""
    pre = source.preprocess
    if pre is None or not takes_levels(source):
        return (CalibrationInput(source.name, ARCHIVE, "Numpy", samples),)
    mean, std = ((0.0,), (1.0,)) if pre.raw else (_levels(pre.mean), _levels(pre.std))
    each = [value * pre.channels if len(value) == 1 else value for value in (mean, std)]
    return (CalibrationInput(source.name, ARCHIVE, "Image", samples, *each),)


def _levels(values: tuple[float, ...]) -> tuple[float, ...]:
    """Return shares of white as grey levels, without digits that no float32 has."""
    return tuple(float(f"{255 * value:.9g}") for value in values)


def _processor(source: Input) -> InputProcessor:
    pre = source.preprocess
    if pre is None or not takes_levels(source):
        auto: Colours = "AutoColorSpace"
        return InputProcessor(source.name, auto, auto, "FP32", "NCHW", "NCHW", "NoCSC")
    colours = color_word(pre)
    return InputProcessor(source.name, colours, colours, "U8", "NHWC", "NCHW", "NoCSC")
