"""The configurations of the toolchains: `config.prototxt` and `config.json`.

Names, values and nesting follow the manuals: of Pulsar 0.6.1 (AXERA-TECH/pulsar-docs, in
Chinese, at f391cff), and of Pulsar2 7.0 (AXERA-TECH/pulsar2-docs-en at 83fa86a,
`user_guides_config/config.md`). Pulsar2 ignores unknown keys and then silently computes
something else: tests compare both files with the manuals.
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
"""Number of inputs on which Pulsar compares its layers; the manual warns that it is slow."""
EVALUATOR = "neuwizard.evaluator.error_measure_evaluator"


def build_pulsar_config(network_input: Input, outputs: Sequence[str], samples: int) -> bytes:
    """Return `config.prototxt` of a network with one input and `samples` calibration inputs.

    The network gets the half of the NPU that boards leave to users. Ranges are per tensor: the
    manual warns that per-channel ranges may reduce accuracy.
    """
    name, image = _quote(network_input.name), has_pixel_input(network_input)
    # An input that is not an image keeps the default colour, the same on both sides.
    border = {"tensor_name": name}
    if image and network_input.preprocess:
        border["color_space"] = f"TENSOR_COLOR_SPACE_{get_color_name(network_input.preprocess)}"
    archive = {"path": _quote(ARCHIVE), "type": "DATASET_TYPE_TAR"}
    return "".join(_print_message({
        "input_type": "INPUT_TYPE_ONNX",
        "output_type": "OUTPUT_TYPE_JOINT",
        "target_hardware": "TARGET_HARDWARE_AX620",
        "cpu_backend_settings": {
            "onnx_setting": {"mode": "DISABLED"},
            "axe_setting": {"mode": "ENABLED", "axe_param": {"optimize_slim_model": True}},
        },
        # The same colours on both sides; otherwise the tool swaps channels.
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
                    "attributes": _build_input_attributes(network_input),
                },
            },
            "dataset_conf_calibration": {
                **archive, "size": samples, "batch_size": 1,
                "calibration_strategy": "CALIB_STRATEGY_PER_TENSOR",
                # The manual recommends two methods. This one is not moved by a single outlier.
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


def _build_input_attributes(network_input: Input) -> Mapping[str, Any]:
    """Return the steps from pixel values to the network's input, in the contract's order."""
    pre = network_input.preprocess
    if pre is None or not has_pixel_input(network_input):
        return {"type": "FLOAT32"}
    if pre.raw:
        return {}
    # Divide by 255, as the contract does; multiplying by the rounded inverse differs.
    scale = {"slope": 1.0, "slope_divisor": 255.0, "bias": 0.0}
    normalization = {"mean": pre.mean, "std": pre.std}
    steps = [{"affine_preprocess": scale}, {"input_normalization": normalization}]
    return {"input_modifications": steps}


def _print_message(message: Mapping[str, Any], indent: str = "") -> Sequence[str]:
    """Return a message in protocol-buffer text format, one line per field; lists repeat it."""
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
    # Nine digits identify every float32; protocol buffers keep no more.
    return f"{scalar:.9g}" if isinstance(scalar, float) else str(scalar)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def build_pulsar2_config(
    network_input: Input, hardware: str, samples: int, *, quantized: bool
) -> bytes:
    """Return the configuration of a network that Pulsar2 compiles.

    For `model_qdq.onnx`, which has tcc's scales, `check` and the bias type follow the vendor's
    configuration for such networks. For `model.onnx` the tool computes the scales.
    """
    pre = network_input.preprocess if has_pixel_input(network_input) else None
    input_config: dict[str, Any] = {
        "tensor_name": network_input.name,
        "calibration_dataset": ARCHIVE,
        "calibration_format": "Image" if pre else "Numpy",
        "calibration_size": samples,
    }
    color = get_color_name(pre) if pre else "AutoColorSpace"
    if pre:  # images are read in the network's colour order
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
            # MSE, as for Pulsar: one outlier does not move the range.
            "calibration_method": "MinMax" if quantized else "MSE",
            "precision_analysis": True,
            "precision_analysis_method": "EndToEnd",
            "precision_analysis_mode": "Reference",
            **({"conv_bias_data_type": "FP32"} if quantized else {}),
        },
        "input_processors": [
            {
                "tensor_name": network_input.name,
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
    """Return fractions of white as pixel values, without digits that no float32 has."""
    return tuple(float(f"{255 * share:.9g}") for share in shares)
