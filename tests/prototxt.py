"""An independent reader of the Pulsar configuration, written from the manual only.

It knows the documented messages and their fields. For each field it knows the type: a number,
`string`, the names of an enumeration, or another message. `*` marks repeated fields.
"""

import re

COLORS = ["AUTO", "BGR", "RGB", "GRAY", "NV12", "NV21", "BGR0"]
TENSOR = {
    "tensor_name": "string",
    "color_space": [f"TENSOR_COLOR_SPACE_{color}" for color in COLORS],
    "data_type": ["UINT4", "INT4", "UINT8", "INT8", "UINT16", "INT16", "FLOAT32"],
    "quantization_value": "int",
    "color_standard": ["CSC_LEGACY", "CSS_ITU_BT601_STUDIO_SWING", "CSS_ITU_BT601_FULL_SWING"],
    "tensor_layout": ["NATIVE", "NHWC", "NCHW"],
}
MODE = {"mode": ["DEFAULT", "ENABLED", "DISABLED"]}
SELECTOR = {"op_name": "string", "op_name_regex": "string"}
DATASET = {
    "path": "string",
    "type": ["DATASET_TYPE_TAR"],
    "size": "int",
    "batch_size": "int",
    "calibration_strategy": ["CALIB_STRATEGY_PER_CHANNEL", "CALIB_STRATEGY_PER_TENSOR"],
    "observer_method": ["OBSVR_METHOD_MIN_MAX", "OBSVR_METHOD_MSE_CLIPPING"],
}
AFFINE = {f"{name}*": "float" for name in ("slope", "slope_divisor", "bias", "bias_divisor")}
INPUT_ITEM = {
    "selector": SELECTOR,
    "attributes": {
        "type": TENSOR["data_type"],
        "input_modifications*": {
            "affine_preprocess": AFFINE,
            "input_normalization": {"mean*": "float", "std*": "float"},
        },
    },
}
OPERATOR_ITEM = {
    "selector": SELECTOR,
    "attributes": {
        "input_feature_type": ["UINT4", "UINT8", "UINT16"],
        "weight_type": ["INT4", "INT8"],
    },
}
CONFIG = {
    "input_path": "string",
    "input_type": ["INPUT_TYPE_ONNX"],
    "output_path": "string",
    "output_type": ["OUTPUT_TYPE_JOINT"],
    "target_hardware": ["TARGET_HARDWARE_AX620", "TARGET_HARDWARE_AX630"],
    "cpu_backend_settings": {
        "onnx_setting": MODE,
        "axe_setting": MODE | {"axe_param": {"optimize_slim_model": "bool"}},
    },
    "src_input_tensors*": TENSOR,
    "dst_input_tensors*": TENSOR,
    "src_output_tensors*": TENSOR,
    "dst_output_tensors*": TENSOR,
    "neuwizard_conf": {
        "operator_conf": {"input_conf_items*": INPUT_ITEM, "operator_conf_items*": OPERATOR_ITEM},
        "dataset_conf_calibration": DATASET,
        "dataset_conf_error_measurement": DATASET,
        "evaluation_conf": {
            "path": "string",
            "type": ["EVALUATION_TYPE_ERROR_MEASURE"],
            "source_ir_types*": ["IR_TYPE_ONNX"],
            "ir_types*": ["IR_TYPE_LAVA"],
            "score_compare_per_layer": "bool",
        },
    },
    "pulsar_conf": {
        "ax620_virtual_npu": [f"AX620_VIRTUAL_NPU_MODE_{color}" for color in ("0", "111")],
        "batch_size_option": ["BSO_AUTO", "BSO_STATIC", "BSO_DYNAMIC"],
        "batch_size*": "int",
        "debug": "bool",
        "output_dir": "string",
    },
}
KINDS = {
    "string": (r'"[^"\\]*"', lambda text: text[1:-1]),
    "int": (r"[0-9]+", int),
    "float": (r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?", float),
    "bool": (r"true|false", lambda text: text == "true"),
}


def read(text):
    """Return a configuration as dictionaries and lists. Anything unexpected is an error."""
    tokens = re.findall(r'"[^"]*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.sub(r"#.*", "", text))
    parsed = parse_message(tokens, CONFIG)
    assert not tokens, tokens[:5]
    return parsed


def parse_message(tokens, fields):
    parsed = {}
    while tokens and tokens[0] != "}":
        name = tokens.pop(0)
        repeated = f"{name}*" in fields
        kind = fields[f"{name}*" if repeated else name]
        if isinstance(kind, dict):
            assert tokens.pop(0) == "{", name
            values = [parse_message(tokens, kind)]
            assert tokens.pop(0) == "}", name
        else:
            assert tokens.pop(0) == ":", name
            values = (
                parse_list(tokens, kind)
                if tokens[0] == "["
                else [parse_scalar(tokens.pop(0), kind)]
            )
            assert repeated or len(values) == 1, name
        assert repeated or name not in parsed, name
        if repeated:
            parsed.setdefault(name, []).extend(values)
        else:
            (parsed[name],) = values
    return parsed


def parse_list(tokens, kind):
    assert tokens.pop(0) == "["
    values = [parse_scalar(tokens.pop(0), kind)]
    while tokens[0] == ",":
        tokens.pop(0)
        values.append(parse_scalar(tokens.pop(0), kind))
    assert tokens.pop(0) == "]"
    return values


def parse_scalar(token, kind):
    if isinstance(kind, list):
        assert token in kind, token
        return token
    pattern, convert = KINDS[kind]
    assert re.fullmatch(pattern, token), token
    return convert(token)
