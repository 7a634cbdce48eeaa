"""Generate ONNX files to damage: small zoo networks, and graphs like those of other exporters."""

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper, parser

from tcc.compiler.data.weights import initialize_random
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx import lower
from tcc.compiler.zoo.shipped import list_specs

ZOO: Mapping[str, tuple[int, Mapping[str, str]]] = {
    "mobilenet_v2": (32, {"width": "0.1"}),
    "shufflenet_v2": (32, {"channels": "[8, 16, 32]", "repeats": "[2, 2, 2]"}),
    "ddsnet": (32, {"growth": "4", "layers": "[1, 1, 1, 1]"}),
    "fastnet": (64, {}),
    "squeezenet": (64, {}),
}
"""The image size and the parameters of each network."""

TAIL = "g = GlobalAveragePool ({}) f = Flatten (g) y = Gemm <transB = 1> (f, fc, fb)"
SOFT = TAIL.replace("y =", "l =") + " y = Softmax <axis = 1> (l)"
TEXTS: Mapping[str, str] = {
    "plain": (
        "c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b) n = BatchNormalization "
        "(c, s, t, m, v) r = Relu (n) " + SOFT.format("r")
    ),
    "pooled": (
        "c = Conv (x, w, b) r = Relu (c) p = AveragePool <kernel_shape = [3, 3], strides = "
        "[2, 2], pads = [0, 0, 1, 1]> (r) q = MaxPool <kernel_shape = [2, 2], auto_pad = "
        '"SAME_LOWER"> (p) ' + SOFT.format("q")
    ),
    "gate": (
        "c = Conv (x, w) a = GlobalAveragePool (c) e = Squeeze (a, axes) h = MatMul (e, sq) "
        "i = HardSigmoid (h) j = Unsqueeze (i, axes) k = Mul (c, j) " + TAIL.format("k")
    ),
    "shuffle": (
        "c = Conv (x, w, b) u = Reshape (c, groups) o = Transpose <perm = [0, 2, 1, 3, 4]> "
        "(u) d = Reshape (o, whole) a, e = Split <axis = 1> (d) h = Relu (e) r = Concat "
        "<axis = 1> (a, h) " + TAIL.format("r")
    ),
    "shapes": (
        "c = Conv (x, w, b) g = GlobalMaxPool (c) s0 = Shape (g) i0 = Constant <value_ints "
        "= [0]> () n0 = Gather <axis = 0> (s0, i0) k0 = Constant <value_ints = [-1]> () z0 "
        "= Concat <axis = 0> (n0, k0) f = Reshape (g, z0) y = Gemm <transB = 1> (f, fc, fb)"
    ),
    "hard": (
        "c = Conv (x, w, b) a = Add (c, three) k = Clip (a, zero, six) d = Div (k, six) h = "
        "Mul (c, d) e = Sigmoid (h) r = Mul (h, e) l = LeakyRelu (r) " + SOFT.format("l")
    ),
    "up": (
        "c = Conv (x, w, b) u = ConvTranspose <strides = [2, 2], pads = [0, 0, 1, 1]> (c, "
        'tw) r = Resize <mode = "linear"> (u, , scales) p = Pad (r, border) ' + TAIL.format("p")
    ),
    "norm": (
        "c = Conv (x, w, b) m0 = ReduceMean <axes = [1]> (c) d = Sub (c, m0) q = Mul (d, d) "
        "v0 = ReduceMean <axes = [1]> (q) a = Add (v0, six) r = Sqrt (a) n = Div (d, r) "
        + TAIL.format("n")
    ),
    "last": (
        "o = Transpose <perm = [0, 3, 1, 2]> (x) c = Conv (o, w, b) r = Relu (c) i = "
        "Transpose <perm = [0, 2, 3, 1]> (r) p = ReduceMean <axes = [1, 2], keepdims = 0> "
        "(i) h = MatMul (p, sq) y = Softmax (h)"
    ),
    "attention": (
        "c = Conv (x, w, b) a = Reshape (c, rows) k = Transpose <perm = [0, 2, 1]> (a) q = "
        "MatMul (k, a) y = Softmax (q)"
    ),
    "dead": (
        "c = Conv (x, w, b) a = Add (c, low) r = Relu (a) p = AveragePool <kernel_shape = "
        '[2, 2], auto_pad = "SAME_UPPER"> (r) ' + SOFT.format("p")
    ),
}
"""The nodes of each graph in ONNX's text format. Input x is 3 x 12 x 12; the output is y."""


def _make_constants() -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(7)

    def make_noise(*shape: int) -> np.ndarray:
        return np.asarray(numbers.standard_normal(shape, np.float32))

    def make_integers(*values: int) -> np.ndarray:
        return np.array(values, np.int64)

    floats = {"zero": 0, "three": 3, "six": 6, "low": -1e6}
    return {
        "w": make_noise(8, 3, 3, 3),
        "b": make_noise(8),
        "s": make_noise(8),
        "t": make_noise(8),
        "m": make_noise(8),
        "v": np.abs(make_noise(8)) + np.float32(0.5),
        "fc": make_noise(5, 8),
        "fb": make_noise(5),
        "sq": make_noise(8, 8),
        "tw": make_noise(8, 8, 3, 3),
        "axes": make_integers(2, 3),
        "groups": make_integers(0, 2, 4, 10, 10),
        "whole": make_integers(0, 8, 10, 10),
        "rows": make_integers(0, 8, 100),
        "scales": np.array([1, 1, 0.5, 2], np.float32),
        "border": make_integers(0, 0, 1, 0, 0, 0, 0, 2),
        **{name: np.array(number, np.float32) for name, number in floats.items()},
    }


def _parse_model(name: str) -> ModelProto:
    size = "12, 12, 3" if name == "last" else "3, 12, 12"
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    graph_signature = f"(float[N, {size}] x) => (float[N, K] y)"
    model = parser.parse_model(f"{head} {name} {graph_signature} {{ {TEXTS[name]} }}")
    if name == "attention":
        model.graph.output[0].type.tensor_type.shape.dim.add()
    input_names = {value for node in model.graph.node for value in node.input}
    constants = _make_constants().items()
    tensors = [
        numpy_helper.from_array(value, key) for key, value in constants if key in input_names
    ]
    model.graph.initializer.extend(tensors)
    return model


def _export_zoo_model(name: str) -> ModelProto:
    size, settings = ZOO[name]
    path = list_specs()[name]
    text = path.read_text().replace("256, 256", f"{size}, {size}")
    with tempfile.TemporaryDirectory(prefix="tcc-") as folder:
        small = Path(folder) / path.name
        small.write_text(text.replace("224, 224", f"{size}, {size}"))
        graph = load(small, settings).graph
    return lower(Model(graph, initialize_random(graph)))


def _make_function_model() -> ModelProto:
    model = _parse_model("plain")
    domain = helper.make_opsetid("", 17)
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "twice", ["a"], ["b"], body, [domain]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "twice", "own"
    model.ir_version = 9
    return model


def _make_external_model() -> ModelProto:
    model = _parse_model("plain")
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=EXTERNAL_FILE)
    tensor.external_data.add(key="length", value=str(len(tensor.raw_data)))
    tensor.ClearField("raw_data")
    return model


EXTERNAL_FILE = "weights.bin"
"""A file next to the model, with one of its external tensors."""


def make_external_file() -> bytes:
    """Return the content of the external file."""
    return _make_constants()["w"].tobytes()


@cache
def make_models() -> tuple[bytes, ...]:
    """Return the ONNX files."""
    models = [
        *map(_parse_model, TEXTS),
        *map(_export_zoo_model, ZOO),
        _make_function_model(),
        _make_external_model(),
    ]
    return tuple(model.SerializeToString(deterministic=True) for model in models)
