"""The configurations of the AXERA tools follow the manuals."""

import json

import prototxt
import pytest

from tcc.backends.pulsar.configs import build_pulsar2_config, build_pulsar_config
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ir.types import TensorType

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_input(color, channels, **settings):
    return Input("image", TensorType((channels, 6, 10)), Preprocess(color, **settings))


IMAGES = {
    "RGB": make_input("rgb", 3, mean=MEAN, std=STD),
    "BGR": make_input("bgr", 3, mean=(0.5,), std=(0.25,)),
    "GRAY": make_input("gray", 1, mean=(0.1,), std=(1.0,)),
}
NUMBERS = {
    "no image": Input("numbers", TensorType((5,))),
    "its own scale": make_input("rgb", 3, scale="max"),
}


@pytest.mark.parametrize("color", IMAGES)
def test_image_inputs_follow_the_input_contract(color):
    source = IMAGES[color]
    text = build_pulsar_config(source, ["logits", "mask"], 20).decode()
    config = prototxt.read(text)
    (source_tensor,), (target_tensor,) = config["src_input_tensors"], config["dst_input_tensors"]
    assert source_tensor == {"tensor_name": "image", "color_space": f"TENSOR_COLOR_SPACE_{color}"}
    assert target_tensor == source_tensor | {"data_type": "UINT8", "tensor_layout": "NHWC"}
    layouts = {
        tensor["tensor_name"]: tensor["tensor_layout"] for tensor in config["dst_output_tensors"]
    }
    assert layouts == {"logits": "NHWC", "mask": "NHWC"}
    (input_config,) = config["neuwizard_conf"]["operator_conf"]["input_conf_items"]
    assert input_config["selector"] == {"op_name": "image"}
    scale, normalization = input_config["attributes"]["input_modifications"]
    assert scale == {"affine_preprocess": {"slope": [1], "slope_divisor": [255], "bias": [0]}}
    pre = source.preprocess
    assert normalization == {"input_normalization": {"mean": [*pre.mean], "std": [*pre.std]}}
    dataset = config["neuwizard_conf"]["dataset_conf_calibration"]
    assert (dataset["path"], dataset["size"], dataset["batch_size"]) == ("calibration.tar", 20, 1)
    assert config["pulsar_conf"]["ax620_virtual_npu"] == "AX620_VIRTUAL_NPU_MODE_111"


@pytest.mark.parametrize("name", NUMBERS)
def test_numeric_inputs_are_passed_as_float32(name):
    source = NUMBERS[name]
    config = prototxt.read(build_pulsar_config(source, ["logits"], 3).decode())
    (input_config,) = config["neuwizard_conf"]["operator_conf"]["input_conf_items"]
    assert input_config["attributes"] == {"type": "FLOAT32"}
    (target_tensor,) = config["dst_input_tensors"]
    assert target_tensor == {
        "tensor_name": source.name,
        "data_type": "FLOAT32",
        "tensor_layout": "NCHW",
    }
    pulsar2_settings = json.loads(build_pulsar2_config(source, "AX650", 3, quantized=False))
    (calibration_config,) = pulsar2_settings["quant"]["input_configs"]
    assert calibration_config["calibration_format"] == "Numpy"
    assert "calibration_mean" not in calibration_config
    assert pulsar2_settings["input_processors"][0]["src_dtype"] == "FP32"


@pytest.mark.parametrize("color", IMAGES)
def test_pulsar2_takes_quantized_pixels(color):
    source = IMAGES[color]
    pulsar2_settings = json.loads(build_pulsar2_config(source, "AX620E", 7, quantized=False))
    assert (pulsar2_settings["model_type"], pulsar2_settings["target_hardware"]) == (
        "ONNX",
        "AX620E",
    )
    (calibration_config,) = pulsar2_settings["quant"]["input_configs"]
    channels = source.type.shape[0]
    for key, values in (
        ("calibration_mean", source.preprocess.mean),
        ("calibration_std", source.preprocess.std),
    ):
        expected = [255 * value for value in values] * (channels // len(values))
        assert calibration_config[key] == pytest.approx(expected, rel=1e-8)
    (input_processor,) = pulsar2_settings["input_processors"]
    assert input_processor == {
        "tensor_name": "image", "tensor_format": color, "src_format": color, "src_dtype": "U8",
        "src_layout": "NHWC", "tensor_layout": "NCHW", "csc_mode": "NoCSC",
    }  # fmt: skip


BOTH_PREPROCESSORS = {
    "selector": {"op_name": "image"},
    "attributes": {
        "input_modifications": [
            {"affine_preprocess": {"slope": [1], "slope_divisor": [255], "bias": [0]}},
            {"input_normalization": {"mean": [*MEAN], "std": [*STD]}},
        ]
    },
}
ARCHIVE = {"path": "calibration.tar", "type": "DATASET_TYPE_TAR", "batch_size": 1}
EXPECTED_CONFIG = {
    "input_type": "INPUT_TYPE_ONNX",
    "output_type": "OUTPUT_TYPE_JOINT",
    "target_hardware": "TARGET_HARDWARE_AX620",
    "cpu_backend_settings": {
        "onnx_setting": {"mode": "DISABLED"},
        "axe_setting": {"mode": "ENABLED", "axe_param": {"optimize_slim_model": True}},
    },
    "src_input_tensors": [{"tensor_name": "image", "color_space": "TENSOR_COLOR_SPACE_RGB"}],
    "dst_input_tensors": [
        {
            "tensor_name": "image", "color_space": "TENSOR_COLOR_SPACE_RGB", "data_type": "UINT8",
            "tensor_layout": "NHWC",
        }
    ],
    "dst_output_tensors": [
        {"tensor_name": "logits", "data_type": "FLOAT32", "tensor_layout": "NHWC"}
    ],
    "neuwizard_conf": {
        "operator_conf": {"input_conf_items": [BOTH_PREPROCESSORS]},
        "dataset_conf_calibration": ARCHIVE | {
            "size": 3, "calibration_strategy": "CALIB_STRATEGY_PER_TENSOR",
            "observer_method": "OBSVR_METHOD_MSE_CLIPPING",
        },
        "dataset_conf_error_measurement": ARCHIVE | {"size": 3},
        "evaluation_conf": {
            "path": "neuwizard.evaluator.error_measure_evaluator",
            "type": "EVALUATION_TYPE_ERROR_MEASURE",
            "source_ir_types": ["IR_TYPE_ONNX"], "ir_types": ["IR_TYPE_LAVA"],
            "score_compare_per_layer": True,
        },
    },
    "pulsar_conf": {
        "ax620_virtual_npu": "AX620_VIRTUAL_NPU_MODE_111", "batch_size": [1], "debug": False,
    },
}  # fmt: skip


def test_complete_configuration_of_pulsar():
    """The reader accepts only fields and values of the manual."""
    assert (
        prototxt.read(build_pulsar_config(IMAGES["RGB"], ["logits"], 3).decode()) == EXPECTED_CONFIG
    )


@pytest.mark.parametrize("quantized", [True, False])
def test_complete_configuration_of_pulsar2(quantized):
    """Each key is in the manual: the tool ignores unknown keys."""
    bias = {"conv_bias_data_type": "FP32"} if quantized else {}
    assert json.loads(build_pulsar2_config(IMAGES["GRAY"], "AX650", 7, quantized=quantized)) == {
        "input": "model_qdq.onnx" if quantized else "model.onnx",
        "output_dir": "out", "output_name": "compiled.axmodel",
        "model_type": "QuantONNX" if quantized else "ONNX",
        "target_hardware": "AX650", "npu_mode": "NPU1",
        "quant": {
            "input_configs": [
                {
                    "tensor_name": "image", "calibration_dataset": "calibration.tar",
                    "calibration_format": "Image", "calibration_size": 7,
                    "calibration_mean": [25.5], "calibration_std": [255.0],
                }
            ],
            "calibration_method": "MinMax" if quantized else "MSE",
            "precision_analysis": True, "precision_analysis_method": "EndToEnd",
            "precision_analysis_mode": "Reference", **bias,
        },
        "input_processors": [
            {
                "tensor_name": "image", "tensor_format": "GRAY", "src_format": "GRAY",
                "src_dtype": "U8", "src_layout": "NHWC", "tensor_layout": "NCHW",
                "csc_mode": "NoCSC",
            }
        ],
        "compiler": {"check": 2 if quantized else 0},
    }  # fmt: skip
