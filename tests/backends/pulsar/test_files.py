"""The check of whole files: it finds what was done to a file that the emitter wrote."""

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


def emitted(chip):
    graph = build_dense()
    return build_npu_onnx(
        passes.run(Model(graph, sample_weights(graph)), FLOAT_PASSES[chip.toolchain]), chip
    )


def refused(made, chip):
    return [each for each in check(made, chip) if each.severity is Severity.REFUSED]


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.target)
def test_what_is_emitted_keeps_every_rule(chip):
    made = emitted(chip)
    assert refused(made, chip) == []
    assert made.ir_version == 7
    assert [(each.domain, each.version) for each in made.opset_import] == [("", 13)]
    kinds = {node.op_type for node in made.graph.node}
    assert not kinds & {"BatchNormalization", "Gemm", "MatMul", "Identity"}
    attributes = {(n.op_type, a.name) for n in made.graph.node for a in n.attribute}
    assert "auto_pad" not in {name for _, name in attributes}
    (image,) = made.graph.input
    assert [size.dim_value for size in image.type.tensor_type.shape.dim] == [1, 3, 16, 16]


def conv_of(made):
    return next(node for node in made.graph.node if node.op_type == "Conv")


def opset(made):
    made.opset_import[0].version = 17


def old_opset(made):
    made.opset_import[0].version = 10


def open_batch(made):
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"


def no_shape(made):
    made.graph.output[0].type.tensor_type.ClearField("shape")


def other_output(made):
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6


def narrow_weights(made):
    weight = next(t for t in made.graph.initializer if t.name == conv_of(made).input[1])
    weight.dims[0] -= 1


def lost_weights(made):
    del made.graph.initializer[0]


def automatic(made):
    node = conv_of(made)
    kept = [each for each in node.attribute if each.name != "pads"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("auto_pad", "SAME_LOWER")])


def unknown(made):
    conv_of(made).op_type = "Convolution"


def own_domain(made):
    conv_of(made).domain = "axera"
    made.opset_import.append(helper.make_opsetid("axera", 1))


def doubles(made):
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def levels(made):
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


def empty(made):
    del made.graph.node[:]


def dilated(made):
    node = conv_of(made)
    next(a for a in node.attribute if a.name == "dilations").ints[:] = [12, 12]
    next(a for a in node.attribute if a.name == "pads").ints[:] = [12, 12, 12, 12]


def twice(made):
    made.graph.node.append(conv_of(made))


def backwards(made):
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([nodes[1], nodes[0], *nodes[2:]])


def lost_end(made):
    made.graph.node[-1].output[0] = "elsewhere"


SPOILT = {
    twice: "`stem",
    backwards: "`stem_relu` reads",
    lost_end: "nothing makes the output `logits`",
    opset: "its opset is 17",
    old_opset: "its opset is 10",
    open_batch: "the shape of `image` is not fixed",
    no_shape: "the shape of `logits` is not fixed",
    other_output: "ONNX cannot infer its shapes",
    narrow_weights: "ONNX cannot infer its shapes",
    lost_weights: "`stem",
    automatic: "`auto_pad` is SAME_LOWER",
    unknown: "Convolution is not listed",
    own_domain: "it has operators or constants of its own",
    doubles: "`image` holds no floats",
    levels: "`image` holds no floats",
    empty: "it has no operator",
    dilated: "it covers 25x25 pixels",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_is_spoilt_is_found(spoil):
    made = emitted(AX620)
    spoil(made)
    found = [each.found for each in refused(made, AX620)]
    assert any(each.startswith(SPOILT[spoil]) for each in found), found


def test_a_newer_opset_is_for_pulsar2_alone():
    made = emitted(AX620E)
    opset(made)
    assert refused(made, AX620E) == []
    made.ir_version = 9
    (doubt,) = (each for each in check(made, AX620E) if each.severity is Severity.DOUBTFUL)
    assert doubt.message == "its IR version is 9"


@pytest.mark.parametrize("data", [b"", b"onnx", b"\x00" * 100, None], ids=str)
def test_what_is_no_model_is_refused(data):
    whole = emitted(AX620).SerializeToString()
    found = check_file(whole[: len(whole) // 2] if data is None else data, AX620)
    assert any(each.severity is Severity.REFUSED for each in found)
    assert check_file(whole, AX620) == check(emitted(AX620), AX620)


def test_a_package_holds_no_file_that_breaks_a_rule():
    made = emitted(AX620)
    verify({"model.onnx": made.SerializeToString(), "model.txt": b"?"}, AX620)
    automatic(made)
    with pytest.raises(RuleError, match=r"model\.onnx for ax620: .*`auto_pad` is SAME_LOWER"):
        verify({"model.onnx": made.SerializeToString()}, AX620)


@pytest.mark.parametrize("seed", range(4))
def test_no_damaged_file_ends_the_check(seed):
    """Whatever a byte says, the check says something or nothing, and does not fail."""
    import random

    whole = bytearray(emitted(AX620).SerializeToString())
    draw = random.Random(seed)
    for _ in range(25):
        spoilt = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
        for each in check_file(bytes(spoilt), AX620):
            assert str(each)
