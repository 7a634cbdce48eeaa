"""Each QDQ rule reports the file that breaks it, and no other rule does."""

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tcc.backends.pulsar.chips import AX620, AX620E, AX650
from tcc.backends.pulsar.onnx_model import build_qdq_onnx
from tcc.backends.pulsar.rules.check import check, check_file
from tcc.backends.pulsar.rules.qdq_rules import RULES
from tcc.backends.pulsar.rules.rule import Severity
from tcc.testing.int8_models import build_int8_model
from tcc.testing.nets import build_dense
from tcc.testing.op_cases import sample_weights

U8, S8, S32, F32 = np.uint8, np.int8, np.int32, np.float32


SOUND_FILE = {
    "scale": F32(0.1), "zero": U8(128), "weights": np.ones((8, 4, 3, 3), S8),
    "steps": np.full(8, 0.5, F32), "offsets": np.zeros(8, S8), "axis": 0,
    "biases": np.zeros(8, S32), "moved": False, "stored": True, "opset": 13, "kind": "Conv",
}  # fmt: skip
"""A quantized convolution: its scales, weights and bias."""


def make_settings(**changes):
    """Return changed settings of a file."""
    assert changes.keys() <= SOUND_FILE.keys()
    return SimpleNamespace(**SOUND_FILE | changes)


def make_constants(file):
    arrays = {
        "scale": file.scale, "zero": file.zero, "weights": file.weights, "steps": file.steps,
        "offsets": file.offsets, "biases": file.biases, "wide": np.asarray(file.steps) * F32(0.1),
        "none": np.zeros(np.shape(file.steps), np.asarray(file.biases).dtype),
    }  # fmt: skip
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def make_model(file):
    floats = not np.issubdtype(np.asarray(file.weights).dtype, np.integer)
    scale = "scale" if file.stored else "made"
    nodes = [
        helper.make_node("Relu", ["scale"], ["made"], "make"),
        helper.make_node("QuantizeLinear", ["x", scale, "zero"], ["levels"], "in"),
        *([helper.make_node("Transpose", ["levels"], ["other"], "move")] if file.moved else []),
        helper.make_node("DequantizeLinear", ["levels", scale, "zero"], ["image"], "image"),
        *([] if floats else [helper.make_node("DequantizeLinear", ["weights", "steps", "offsets"], ["w"], "w", axis=file.axis)]),
        helper.make_node("DequantizeLinear", ["biases", "wide", "none"], ["b"], "b", axis=0),
        helper.make_node(file.kind, ["image", "weights" if floats else "w", "b"], ["y"], "conv"),
    ]  # fmt: skip
    size = 8 if file.kind == "ConvTranspose" else 4
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 8, size, size))]
    channels = np.shape(file.weights)[0 if file.kind == "ConvTranspose" else 1]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, channels, 6, 6))
    graph = helper.make_graph(nodes, "g", [source], outputs, make_constants(file))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", file.opset)], ir_version=7
    )


def find_broken_rules(file, chip=AX650):
    violations = check(make_model(file), chip)
    names = {violation.rule.partition(":")[0].removeprefix("rule ") for violation in violations}
    return names - {"conv.speed"}, violations


BROKEN_FILES = {
    "signed activations": ("qdq.levels", "in", make_settings(zero=S8(0))),
    "unsigned weights": ("qdq.levels", "w", make_settings(weights=np.ones((8, 4, 3, 3), U8), offsets=np.zeros(8, U8))),
    "wide weights": ("qdq.levels", "w", make_settings(weights=np.ones((8, 4, 3, 3), S32), offsets=np.zeros(8, S32))),
    "narrow biases": ("qdq.levels", "b", make_settings(biases=np.zeros(8, U8))),
    "levels elsewhere": ("qdq.pair", "in", make_settings(moved=True)),
    "channels of activations": ("qdq.tensor", "in", make_settings(scale=np.full(4, 0.1, F32), zero=np.full(4, 7, U8))),
    "scales by channels in": ("qdq.filters", "w", make_settings(axis=1, weights=np.ones((8, 8, 3, 3), S8))),
    "scales of filters by a transposed one": ("qdq.filters", "w", make_settings(kind="ConvTranspose", weights=np.ones((8, 8, 3, 3), S8))),
    "too few scales": ("qdq.filters", "w", make_settings(steps=np.ones(4, F32), offsets=np.zeros(4, S8), biases=np.zeros(4, S32))),
    "weights with a zero point": ("qdq.zero", "w", make_settings(offsets=np.full(8, 1, S8))),
    "no scale": ("qdq.scale", "in", make_settings(scale=F32(0))),
    "scale below zero": ("qdq.scale", "w", make_settings(steps=np.full(8, -0.5, F32))),
    "endless scale": ("qdq.scale", "in", make_settings(scale=F32(np.inf))),
    "nan scale": ("qdq.scale", "in", make_settings(scale=F32(np.nan))),
    "computed scale": ("qdq.scale", "in", make_settings(stored=False)),
    "old operators": ("qdq.opset", "in", make_settings(opset=12)),
    "float weights": ("qdq.weights", "conv", make_settings(weights=np.ones((8, 4, 3, 3), F32))),
}  # fmt: skip


@pytest.mark.parametrize("chip", [AX620E, AX650], ids=lambda chip: chip.target)
@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_rule_is_reported(name, chip):
    rule, operator, file = BROKEN_FILES[name]
    names, violations = find_broken_rules(file, chip)
    assert rule in names, violations
    rule_violations = [
        violation for violation in violations if violation.rule.startswith(f"rule {rule}:")
    ]
    assert operator in {violation.operator for violation in rule_violations}
    doubtful = rule == "qdq.weights"
    assert {violation.severity for violation in rule_violations} == {
        Severity.DOUBTFUL if doubtful else Severity.REFUSED
    }
    assert all(violation.message and violation.remedy for violation in rule_violations)


def test_every_rule_has_a_test_file():
    assert {rule for rule, _, _ in BROKEN_FILES.values()} == {rule.name for rule in RULES}


SOUND = {
    "unchanged": make_settings(),
    "one scale per tensor": make_settings(steps=F32(0.5), offsets=S8(0), biases=np.zeros((), S32)),
    "transposed": make_settings(kind="ConvTranspose", weights=np.ones((4, 8, 3, 3), S8), axis=1),
    "negative axis": make_settings(axis=-4),
}


@pytest.mark.parametrize("name", SOUND)
def test_valid_files_have_no_violations(name):
    names, violations = find_broken_rules(SOUND[name])
    assert names <= {"reported"}, violations


def test_long_scale_vectors_are_checked():
    """A wrong scale among 5,000, which are not in a small constant."""
    steps = np.full(5000, 0.5, F32)
    wide_file = make_settings(weights=np.ones((5000, 1, 1, 1), S8), steps=steps, offsets=np.zeros(5000, S8),
                   biases=np.zeros(5000, S32))  # fmt: skip
    damaged_steps = steps.copy()
    damaged_steps[4321] = 0
    for file, broken_rules in (
        (wide_file, set()),
        (SimpleNamespace(**vars(wide_file) | {"steps": damaged_steps}), {"qdq.scale"}),
    ):
        onnx_model = make_model(file)
        onnx_model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5000
        for axis in (2, 3):
            onnx_model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value = 6
        names = {
            violation.rule.partition(":")[0].removeprefix("rule ")
            for violation in check(onnx_model, AX650)
        }
        assert names == broken_rules


def test_emitted_qdq_files_fit_pulsar2_only():
    graph = build_dense()
    data = build_qdq_onnx(build_int8_model(graph, sample_weights(graph)), AX650)
    assert [violation for violation in check_file(data, AX650) if "qdq." in violation.rule] == []
    violations = check_file(data, AX620)
    assert any(violation.message == "QuantizeLinear is not listed" for violation in violations)
