"""The check of complete files detects corruption of emitted files."""

import pytest
from onnx import TensorProto, helper

from tcc.backends.pulsar.chips import AX620, AX620E, CHIPS
from tcc.backends.pulsar.onnx_model import build_npu_onnx
from tcc.backends.pulsar.rewrite import FLOAT_PASSES
from tcc.backends.pulsar.rules.check import RuleError, check, check_file, verify
from tcc.backends.pulsar.rules.rule import Severity
from tcc.compiler import passes
from tcc.compiler.ir.graph import Model
from tcc.testing.nets import build_dense
from tcc.testing.op_cases import sample_weights


def emit_model(chip):
    graph = build_dense()
    return build_npu_onnx(
        passes.run(Model(graph, sample_weights(graph)), FLOAT_PASSES[chip.toolchain]), chip
    )


def list_refused(model, chip):
    return [violation for violation in check(model, chip) if violation.severity is Severity.REFUSED]


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.target)
def test_emitted_files_break_no_rule(chip):
    model = emit_model(chip)
    assert list_refused(model, chip) == []
    assert model.ir_version == 7
    assert [(opset_id.domain, opset_id.version) for opset_id in model.opset_import] == [("", 13)]
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"BatchNormalization", "Gemm", "MatMul", "Identity"}
    attributes = {(n.op_type, a.name) for n in model.graph.node for a in n.attribute}
    assert "auto_pad" not in {name for _, name in attributes}
    (image,) = model.graph.input
    assert [size.dim_value for size in image.type.tensor_type.shape.dim] == [1, 3, 16, 16]


def find_conv(model):
    return next(node for node in model.graph.node if node.op_type == "Conv")


def set_new_opset(model):
    model.opset_import[0].version = 17


def set_old_opset(model):
    model.opset_import[0].version = 10


def set_open_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"


def clear_output_shape(model):
    model.graph.output[0].type.tensor_type.ClearField("shape")


def resize_output(model):
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6


def trim_weights(model):
    weight = next(t for t in model.graph.initializer if t.name == find_conv(model).input[1])
    weight.dims[0] -= 1


def remove_weights(model):
    del model.graph.initializer[0]


def set_auto_pad(model):
    node = find_conv(model)
    other_attributes = [attribute for attribute in node.attribute if attribute.name != "pads"]
    del node.attribute[:]
    node.attribute.extend([*other_attributes, helper.make_attribute("auto_pad", "SAME_LOWER")])


def set_unknown_op(model):
    find_conv(model).op_type = "Convolution"


def set_custom_domain(model):
    find_conv(model).domain = "axera"
    model.opset_import.append(helper.make_opsetid("axera", 1))


def set_double_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def set_int64_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


def remove_nodes(model):
    del model.graph.node[:]


def set_dilation(model):
    node = find_conv(model)
    next(a for a in node.attribute if a.name == "dilations").ints[:] = [12, 12]
    next(a for a in node.attribute if a.name == "pads").ints[:] = [12, 12, 12, 12]


def insert_duplicate(model):
    model.graph.node.append(find_conv(model))


def swap_nodes(model):
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([nodes[1], nodes[0], *nodes[2:]])


def rename_last_output(model):
    model.graph.node[-1].output[0] = "elsewhere"


EXPECTED_MESSAGES = {
    insert_duplicate: "`stem",
    swap_nodes: "`stem_relu` reads",
    rename_last_output: "no operator computes the output `logits`",
    set_new_opset: "its opset is 17",
    set_old_opset: "its opset is 10",
    set_open_batch: "the shape of `image` is not fixed",
    clear_output_shape: "the shape of `logits` is not fixed",
    resize_output: "ONNX cannot infer its shapes",
    trim_weights: "ONNX cannot infer its shapes",
    remove_weights: "`stem",
    set_auto_pad: "`auto_pad` is SAME_LOWER",
    set_unknown_op: "Convolution is not listed",
    set_custom_domain: "it has custom operators, functions or sparse constants",
    set_double_input: "`image` is not float32",
    set_int64_input: "`image` is not float32",
    remove_nodes: "it has no operator",
    set_dilation: "it covers 25x25 pixels",
}


@pytest.mark.parametrize("spoil", EXPECTED_MESSAGES, ids=lambda spoil: spoil.__name__)
def test_corrupted_files_are_detected(spoil):
    model = emit_model(AX620)
    spoil(model)
    violations = [violation.message for violation in list_refused(model, AX620)]
    assert any(violation.startswith(EXPECTED_MESSAGES[spoil]) for violation in violations), (
        violations
    )


def test_newer_opsets_fit_pulsar2_only():
    model = emit_model(AX620E)
    set_new_opset(model)
    assert list_refused(model, AX620E) == []
    model.ir_version = 9
    (doubtful,) = (
        violation for violation in check(model, AX620E) if violation.severity is Severity.DOUBTFUL
    )
    assert doubtful.message == "its IR version is 9"


@pytest.mark.parametrize("data", [b"", b"onnx", b"\x00" * 100, None], ids=str)
def test_files_that_are_no_model_are_refused(data):
    model_bytes = emit_model(AX620).SerializeToString()
    violations = check_file(model_bytes[: len(model_bytes) // 2] if data is None else data, AX620)
    assert any(violation.severity is Severity.REFUSED for violation in violations)
    assert check_file(model_bytes, AX620) == check(emit_model(AX620), AX620)


def test_packages_contain_only_files_that_keep_the_rules():
    model = emit_model(AX620)
    verify({"model.onnx": model.SerializeToString(), "model.txt": b"?"}, AX620)
    set_auto_pad(model)
    with pytest.raises(RuleError, match=r"model\.onnx for ax620: .*`auto_pad` is SAME_LOWER"):
        verify({"model.onnx": model.SerializeToString()}, AX620)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_do_not_crash_the_check(seed):
    """The check reports violations or nothing for any bytes, and does not crash."""
    import random

    model_bytes = bytearray(emit_model(AX620).SerializeToString())
    draw = random.Random(seed)
    for _ in range(25):
        damaged_bytes = bytearray(model_bytes)
        for _ in range(draw.randint(1, 6)):
            damaged_bytes[draw.randrange(len(damaged_bytes))] = draw.randrange(256)
        for violation in check_file(bytes(damaged_bytes), AX620):
            assert str(violation)
