"""What Pulsar2's configuration may hold: one record an object, which give the JSON Schema as well.

Names and words are those of the manual of 7.0 (AXERA-TECH/pulsar2-docs-en at 83fa86a,
`user_guides_config/config.md`), as far as packages use them. The tool passes over keys that it does
not know, and computes something else than was meant; here they are errors.
"""

import json
from typing import Annotated, Literal

from msgspec import Meta

from tcc.compiler.support import json_records
from tcc.compiler.support.json_records import OmitDefault, Record, RecordError

Colours = Literal["AutoColorSpace", "GRAY", "BGR", "RGB"]
AxisOrder = Literal["NHWC", "NCHW"]


class CalibrationInput(Record, frozen=True):
    """Inputs to calibrate with; mean and deviation are in grey levels, 0 to 255."""

    tensor_name: str
    calibration_dataset: str
    calibration_format: Literal["Image", "Numpy", "Binary", "NumpyObject"]
    calibration_size: int
    calibration_mean: OmitDefault[tuple[float, ...] | None] = None
    calibration_std: OmitDefault[tuple[float, ...] | None] = None


class Quant(Record, frozen=True):
    """How the tool quantises."""

    input_configs: Annotated[tuple[CalibrationInput, ...], Meta(min_length=1)]
    calibration_method: Literal["MinMax", "Percentile", "MSE", "KL"]
    precision_analysis: bool
    precision_analysis_method: Literal["PerLayer", "EndToEnd"]
    precision_analysis_mode: Literal["Reference", "NPUBackend"]
    conv_bias_data_type: OmitDefault[Literal["S32", "FP32"] | None] = None


class InputProcessor(Record, frozen=True):
    """What comes in on the board: `src`, and what the network reads of it."""

    tensor_name: str
    tensor_format: Colours
    src_format: Colours
    src_dtype: Literal["U8", "S8", "U16", "S16", "U32", "S32", "FP16", "FP32"]
    src_layout: AxisOrder
    tensor_layout: AxisOrder
    csc_mode: Literal["NoCSC", "Matrix", "FullRange", "LimitedRange"]


class Compiler(Record, frozen=True):
    """How far the tool checks its own work."""

    check: Annotated[int, Meta(ge=0, le=3)]


class BuildConfig(Record, frozen=True):
    """The whole of `config.json`."""

    input: str
    output_dir: str
    output_name: str
    model_type: Literal["ONNX", "QuantAxModel", "QuantONNX"]
    target_hardware: Literal["AX650", "AX620E", "AX615", "AX637", "AX8860", "M76H", "M57"]
    npu_mode: Literal["NPU1", "NPU2", "NPU3", "NPU4"]
    quant: Quant
    input_processors: Annotated[tuple[InputProcessor, ...], Meta(min_length=1)]
    compiler: Compiler


class BuildConfigError(ValueError):
    """A configuration is not of the schema; the message says where."""


def encode(config: BuildConfig) -> bytes:
    """Return a configuration as JSON."""
    return (json.dumps(json_records.encode(config), indent=2, ensure_ascii=False) + "\n").encode()


def decode(data: bytes) -> BuildConfig:
    """Return the configuration of a text.

    Raises:
        BuildConfigError: It is not JSON, a key is unknown or missing, or a value is not one of
            its words.
    """
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BuildConfigError(f"it is not JSON: {error}") from None
    try:
        found = json_records.decode(BuildConfig, plain)
    except RecordError as error:
        raise BuildConfigError(str(error)[:200]) from None
    for problem in _problems(found):
        raise BuildConfigError(problem)
    return found


def _problems(config: BuildConfig) -> "list[str]":
    """Return what the schema cannot say."""
    known = {
        "AX650": ("NPU1", "NPU2", "NPU3"),
        "M76H": ("NPU1", "NPU2", "NPU3"),
        "AX620E": ("NPU1", "NPU2"),
        "AX615": ("NPU1", "NPU2"),
        "AX8860": ("NPU1", "NPU2", "NPU4"),
        "M57": ("NPU1",),
        "AX637": ("NPU1",),
    }[config.target_hardware]
    found = []
    if config.npu_mode not in known:
        found.append(f"npu_mode: {config.target_hardware} has {', '.join(known)}")
    found += [
        f"input_processors/{each.tensor_name}: colours differ, and nothing swaps them"
        for each in config.input_processors
        if each.csc_mode == "NoCSC" and each.src_format != each.tensor_format
    ]
    for one in config.quant.input_configs:
        numbers = one.calibration_mean is not None or one.calibration_std is not None
        if numbers and one.calibration_format != "Image":
            found.append(f"quant/{one.tensor_name}: only images have a mean and a deviation")
    return found
