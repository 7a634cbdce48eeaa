"""The configurations of AXERA's tools: what is written is documented, what is not is refused."""

import json

import prototxt
import pytest

from tcc.backends.pulsar.pulsar2 import config as second
from tcc.backends.pulsar.pulsar2 import schema
from tcc.backends.pulsar.v1 import config as first
from tcc.backends.pulsar.v1 import reader
from tcc.backends.pulsar.v1.text_format import ConfigError
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ir.types import TensorType

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image(color, channels, **settings):
    return Input("image", TensorType((channels, 6, 10)), Preprocess(color, **settings))


IMAGES = {
    "RGB": image("rgb", 3, mean=MEAN, std=STD),
    "BGR": image("bgr", 3, mean=(0.5,), std=(0.25,)),
    "GRAY": image("gray", 1, mean=(0.1,), std=(1.0,)),
}
NUMBERS = {
    "no image": Input("numbers", TensorType((5,))),
    "its own scale": image("rgb", 3, scale="max"),
}


@pytest.mark.parametrize("color", IMAGES)
def test_images_come_in_as_the_contract_has_them(color):
    source = IMAGES[color]
    text = reader.encode(first.config(source, ["logits", "mask"], 20)).decode()
    found = prototxt.read(text)
    (before,), (after,) = found["src_input_tensors"], found["dst_input_tensors"]
    assert before == {"tensor_name": "image", "color_space": f"TENSOR_COLOR_SPACE_{color}"}
    assert after == before | {"data_type": "UINT8", "tensor_layout": "NHWC"}
    named = {each["tensor_name"]: each["tensor_layout"] for each in found["dst_output_tensors"]}
    assert named == {"logits": "NHWC", "mask": "NHWC"}
    (item,) = found["neuwizard_conf"]["operator_conf"]["input_conf_items"]
    assert item["selector"] == {"op_name": "image"}
    scale, rest = item["attributes"]["input_modifications"]
    assert scale == {"affine_preprocess": {"slope": [1], "slope_divisor": [255], "bias": [0]}}
    pre = source.preprocess
    assert rest == {"input_normalization": {"mean": [*pre.mean], "std": [*pre.std]}}
    data = found["neuwizard_conf"]["dataset_conf_calibration"]
    assert (data["path"], data["size"], data["batch_size"]) == ("calibration.tar", 20, 1)
    assert found["pulsar_conf"]["ax620_virtual_npu"] == "AX620_VIRTUAL_NPU_MODE_111"


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_come_in_as_they_are(name):
    source = NUMBERS[name]
    found = prototxt.read(reader.encode(first.config(source, ["logits"], 3)).decode())
    (item,) = found["neuwizard_conf"]["operator_conf"]["input_conf_items"]
    assert item["attributes"] == {"type": "FLOAT32"}
    (after,) = found["dst_input_tensors"]
    assert after == {"tensor_name": source.name, "data_type": "FLOAT32", "tensor_layout": "NCHW"}
    made = json.loads(schema.encode(second.native(source, "AX650", 3)))
    (given,) = made["quant"]["input_configs"]
    assert given["calibration_format"] == "Numpy"
    assert "calibration_mean" not in given
    assert made["input_processors"][0]["src_dtype"] == "FP32"


@pytest.mark.parametrize("color", IMAGES)
def test_the_second_tool_takes_levels(color):
    source = IMAGES[color]
    made = json.loads(schema.encode(second.native(source, "AX620E", 7)))
    assert (made["model_type"], made["target_hardware"]) == ("ONNX", "AX620E")
    (given,) = made["quant"]["input_configs"]
    channels = source.type.shape[0]
    for key, values in (
        ("calibration_mean", source.preprocess.mean),
        ("calibration_std", source.preprocess.std),
    ):
        wanted = [255 * value for value in values] * (channels // len(values))
        assert given[key] == pytest.approx(wanted, rel=1e-8)
    (arriving,) = made["input_processors"]
    assert arriving == {
        "tensor_name": "image", "tensor_format": color, "src_format": color, "src_dtype": "U8",
        "src_layout": "NHWC", "tensor_layout": "NCHW", "csc_mode": "NoCSC",
    }  # fmt: skip


TEXT = reader.encode(first.config(IMAGES["RGB"], ["logits"], 20)).decode()
WRONG = {
    "an unknown key": ("debug: false", "debugging: false", "78:3: `debugging` is no field here"),
    "a key of elsewhere": ("debug: false", "mean: 1", "78:3: `mean` is no field here"),
    "an unknown word": ("INPUT_TYPE_ONNX", "INPUT_TYPE_TORCH", "1:1: `input_type` is one of"),
    "a quoted word": ("INPUT_TYPE_ONNX", '"INPUT_TYPE_ONNX"', "1:1: `input_type` is one of"),
    "a number for a string": ('"calibration.tar"', "7", "54:5: `path` is a quoted string"),
    "a float for a whole number": ("size: 20", "size: 2.5", "56:5: `size` is a whole number"),
    "a word for true or false": ("debug: false", "debug: no", "78:3: `debug` is true or false"),
    "two of one": ("debug: false", "debug: true debug: true", "78:15: `debug` stands here once"),
    "a brace too few": ("debug: false\n}", "debug: false\n", "80:1: the end stands where"),
    "no colon": ("debug: false", "debug false", "78:9: after `debug` comes"),
    "another colour": ("_RGB\n  data", "_BGR\n  data", "1:1: image: source and destination"),
    "lists of two lengths": ("0.225]", "0.225, 1]", "1:1: Normalization: lists have one number"),
    "a deviation of 0": ("0.225", "0", "1:1: std is 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_documented_is_refused(case):
    old, new, said = WRONG[case]
    assert TEXT.count(old) >= 1
    with pytest.raises(ConfigError) as error:
        reader.decode(TEXT.replace(old, new, 1).encode())
    assert str(error.value).startswith(said)


def test_a_tensor_without_a_name_beside_others_is_refused():
    more = TEXT + "dst_output_tensors { tensor_layout: NCHW }\n"
    with pytest.raises(ConfigError, match="one without a name overrides the others"):
        reader.decode(more.encode())


def test_a_text_is_read_as_people_write_it():
    plain = '# a comment\npulsar_conf: { batch_size: [1, 4] debug : true } # here too\ninput_path: "\\u00e9"'
    found = reader.decode(plain.encode())
    assert (found.pulsar_conf.batch_size, found.pulsar_conf.debug) == ((1, 4), True)
    assert found.input_path == "\u00e9"
    assert reader.decode(reader.encode(found)) == found


JSON = schema.encode(second.native(IMAGES["RGB"], "AX620E", 7)).decode()
WRONG_JSON = {
    "an unknown key": (
        '"check": 0',
        '"check": 0, "chek": 1',
        "compiler: object contains unknown field `chek`",
    ),
    "a mean of numbers": ('"Image"', '"Numpy"', "quant/image: only images have a mean"),
    "another colour": ('"src_format": "RGB"', '"src_format": "BGR"', "input_processors/image: col"),
    "a part that it has not": ('"NPU1"', '"NPU3"', "npu_mode: AX620E has NPU1, NPU2"),
    "no JSON": ("{", "", "it is not JSON"),
}


@pytest.mark.parametrize("case", WRONG_JSON)
def test_the_second_tool_gets_no_unknown_key(case):
    old, new, said = WRONG_JSON[case]
    with pytest.raises(schema.BuildConfigError) as error:
        schema.decode(JSON.replace(old, new, 1).encode())
    assert str(error.value).startswith(said)
