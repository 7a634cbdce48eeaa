"""What the toolchains are to do, from a network's input: `config.prototxt` and `config.json`.

Names, words and nesting are those of the manuals: of Pulsar 0.6.1 (AXERA-TECH/pulsar-docs, in
Chinese, at f391cff), and of Pulsar2 7.0 (AXERA-TECH/pulsar2-docs-en at 83fa86a,
`user_guides_config/config.md`). Pulsar2 passes over keys that it does not know, and computes
something else than was meant: tests compare both files with what the manuals have.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tcc.backends.pulsar.calibration_data import has_pixel_input
from tcc.backends.pulsar.contract import get_color_name
from tcc.backends.pulsar.scripts import ARCHIVE
from tcc.compiler.ir.graph import Input

COMPILED = "compiled.axmodel"
MAX_COMPARED = 4
"""Inputs with which Pulsar compares its layers; the manual warns that it is slow."""
EVALUATOR = "neuwizard.evaluator.error_measure_evaluator"


def build_pulsar_config(source: Input, outputs: Sequence[str], samples: int) -> bytes:
    """Return `config.prototxt` of a network with one input, calibrated with so many samples.

    Its half of the NPU is the one that boards leave to users. Ranges are of tensors: the manual
    warns that ranges of channels may lose accuracy.
    """
    name, image = _quote(source.name), has_pixel_input(source)
    # The colour of floats that are no image is left to the default, the same on both sides.
    border = {"tensor_name": name}
    if image and source.preprocess:
        border["color_space"] = f"TENSOR_COLOR_SPACE_{get_color_name(source.preprocess)}"
    archive = {"path": _quote(ARCHIVE), "type": "DATASET_TYPE_TAR"}
    return "".join(_print_message({
        "input_type": "INPUT_TYPE_ONNX",
        "output_type": "OUTPUT_TYPE_JOINT",
        "target_hardware": "TARGET_HARDWARE_AX620",
        "cpu_backend_settings": {
            "onnx_setting": {"mode": "DISABLED"},
            "axe_setting": {"mode": "ENABLED", "axe_param": {"optimize_slim_model": True}},
        },
        # The same colours on both sides, or the tool would swap channels by itself.
        "src_input_tensors": border,
        "dst_input_tensors": {
            **border,
            "data_type": "UINT8" if image else "FLOAT32",
            "tensor_layout": "NHWC" if image else "NCHW",
        },
        "dst_output_tensors": [
            {"tensor_name": _quote(output), "data_type": "FLOAT32", "tensor_layout": "NHWC"}
            for output in outputs
        ],
        "neuwizard_conf": {
            "operator_conf": {
                "input_conf_items": {
                    "selector": {"op_name": name},
                    "attributes": _build_input_attributes(source),
                },
            },
            "dataset_conf_calibration": {
                **archive, "size": samples, "batch_size": 1,
                "calibration_strategy": "CALIB_STRATEGY_PER_TENSOR",
                # Of the two that the manual recommends, the one that a single far value does not
                # move.
                "observer_method": "OBSVR_METHOD_MSE_CLIPPING",
            },
            "dataset_conf_error_measurement": {
                **archive, "size": min(MAX_COMPARED, samples), "batch_size": 1,
            },
            "evaluation_conf": {
                "path": _quote(EVALUATOR),
                "type": "EVALUATION_TYPE_ERROR_MEASURE",
                "source_ir_types": "IR_TYPE_ONNX",
                "ir_types": "IR_TYPE_LAVA",
                "score_compare_per_layer": True,
            },
        },
        "pulsar_conf": {
            "ax620_virtual_npu": "AX620_VIRTUAL_NPU_MODE_111", "batch_size": 1, "debug": False,
        },
    })).encode()  # fmt: skip


def _build_input_attributes(source: Input) -> Mapping[str, Any]:
    """Return how levels become the network's input, in the order of the contract."""
    pre = source.preprocess
    if pre is None or not has_pixel_input(source):
        return {"type": "FLOAT32"}
    if pre.raw:
        return {}
    # A division by 255, not a product with its rounded inverse: the contract's own step.
    scale = {"slope": 1.0, "slope_divisor": 255.0, "bias": 0.0}
    normalization = {"mean": pre.mean, "std": pre.std}
    steps = [{"affine_preprocess": scale}, {"input_normalization": normalization}]
    return {"input_modifications": steps}


def _print_message(message: Mapping[str, Any], indent: str = "") -> Sequence[str]:
    """Return the text form of protocol buffers, a field a line; a list repeats its field."""
    lines: list[str] = []
    for name, field in message.items():
        for part in field if isinstance(field, list) else (field,):
            if isinstance(part, Mapping):
                lines += (
                    f"{indent}{name} {{\n",
                    *_print_message(part, f"{indent}  "),
                    f"{indent}}}\n",
                )
            else:
                lines.append(f"{indent}{name}: {_print_scalar(part)}\n")
    return lines


def _print_scalar(scalar: str | float | tuple[float, ...]) -> str:
    if isinstance(scalar, tuple):
        spelled = ", ".join(map(_print_scalar, scalar))
        return f"[{spelled}]" if len(scalar) > 1 else spelled
    if isinstance(scalar, bool):
        return str(scalar).lower()
    # Nine digits tell every float32 from its neighbours; protocol buffers keep no more.
    return f"{scalar:.9g}" if isinstance(scalar, float) else str(scalar)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def build_pulsar2_config(source: Input, hardware: str, samples: int, *, quantized: bool) -> bytes:
    """Return the configuration of a network that Pulsar2 compiles.

    That of one which has our scales, `model_qdq.onnx`, is like the maker's own for such networks
    in `check` and the biases; the tool quantizes the floats of `model.onnx` by itself.
    """
    pre = source.preprocess if has_pixel_input(source) else None
    input_config: dict[str, Any] = {
        "tensor_name": source.name,
        "calibration_dataset": ARCHIVE,
        "calibration_format": "Image" if pre else "Numpy",
        "calibration_size": samples,
    }
    color = get_color_name(pre) if pre else "AutoColorSpace"
    if pre:  # images are read in the order of the network's colours
        mean, std = (
            ((0.0,), (1.0,)) if pre.raw else (_scale_to_pixels(pre.mean), _scale_to_pixels(pre.std))
        )
        input_config["calibration_mean"] = mean * pre.channels if len(mean) == 1 else mean
        input_config["calibration_std"] = std * pre.channels if len(std) == 1 else std
    config = {
        "input": "model_qdq.onnx" if quantized else "model.onnx",
        "output_dir": "out",
        "output_name": COMPILED,
        "model_type": "QuantONNX" if quantized else "ONNX",
        "target_hardware": hardware,
        "npu_mode": "NPU1",
        "quant": {
            "input_configs": [input_config],
            # MSE, as for Pulsar: a range that one far value does not move.
            "calibration_method": "MinMax" if quantized else "MSE",
            "precision_analysis": True,
            "precision_analysis_method": "EndToEnd",
            "precision_analysis_mode": "Reference",
            **({"conv_bias_data_type": "FP32"} if quantized else {}),
        },
        "input_processors": [
            {
                "tensor_name": source.name,
                "tensor_format": color,
                "src_format": color,
                "src_dtype": "U8" if pre else "FP32",
                "src_layout": "NHWC" if pre else "NCHW",
                "tensor_layout": "NCHW",
                "csc_mode": "NoCSC",
            }
        ],
        "compiler": {"check": 2 if quantized else 0},
    }
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _scale_to_pixels(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Return shares of white as grey levels, without digits that no float32 has."""
    return tuple(float(f"{255 * share:.9g}") for share in shares)
