"""Logs of the vendor toolchains, in the formats of their documentation."""

import pytest

from tcc.backends.pulsar import logs
from tcc.backends.pulsar.chips import Toolchain
from tcc.compiler.support.diagnostics import UserError

FIRST_LOG = """
0.6.1.14
2124c702
[09 07:10:33 frozen super_pulsar.toolchain_wrappers.wrapper_toolchain:482] File saved: /data/model.joint
[26 07:14:45 <frozen super_pulsar.func_wrappers.pulsar_run.compare>:82] Score compare table:
---------------------------  ----------------  ------------------
Layer: features/conv1  2-norm RE: 1.20%  cosine-sim: 0.9999
Layer: logits  2-norm RE: 4.70%  cosine-sim: 0.9989
Layer: logits  2-norm RE: 9.10%  cosine-sim: 0.9721
"""
BOARD = (
    FIRST_LOG
    + """
tools version: 0.6.1.4
Run task took 32744 us (99 rounds for average)
    Run NEU took an average of 32626 us (overhead 22 us)
    Run AXE took an average of 43 us (overhead 4 us)
"""
)
OLD = """
 Quant Precision Table \u3010PerLayer Reference\u3011
\u2503 Operator \u2503 Type \u2503 Output Tensor \u2503 Data Type \u2503 Shape \u2503 Cosin Distance \u2503
\u2502 Conv_0 \u2502 AxQuantizedConv \u2502 474 \u2502 FP32 \u2502 (1, 32, 112, 112) \u2502 0.999932050704956 \u2502
\u251c\u2500\u2500\u2500\u253c\u2500\u2500\u2500\u2524
\u2502 Gemm_1 \u2502 AxQuantizedFC \u2502 logits \u2502 FP32 \u2502 (1, 6) \u2502 0.98 \u2502
Pulsar2 Version:  1.8-beta1
  Node "npu_0": type "neu mode", inputs "['input']", outputs "['x']"
  Node "cpu_1": type "Softmax", inputs "['x']", outputs "['logits']"
"""
NEW = """
\u2503 Operator \u2503 Type \u2503 Output Tensor \u2503 Shape \u2503 DType \u2503 QDType \u2503 Cosin \u2503 MSE \u2503
\u2502 Gemm_1 \u2502 AxQuantizedFC \u2502 logits \u2502 (1, 6) \u2502 FP32 \u2502 U8 \u2502 0.97993 \u2502 0.00003 \u2502
"""


def read_report(toolchain, text):
    return logs.parse_log(toolchain, text, ["logits"], "log.txt")


def test_layer_comparison_of_pulsar_is_read():
    report = read_report(Toolchain.PULSAR, FIRST_LOG)
    assert (report.tool, report.version, report.parts) == ("Pulsar", "0.6.1.14", ())
    assert [(layer.name, layer.cosine) for layer in report.layers] == [
        ("features/conv1", 0.9999),
        ("logits", 0.9721),
    ]
    assert [layer.name for layer in report.inaccurate_outputs] == ["logits"]
    assert read_report(Toolchain.PULSAR, BOARD).on_cpu == ("axe",)
    assert read_report(Toolchain.PULSAR, FIRST_LOG + "part_0.neu part_1.onnx\n").on_cpu == (
        "part_1.onnx",
    )


def test_the_end_of_a_log_is_reported():
    """A complete log, one that ends in a command, and one without commands."""
    partial_log = f"+ cd /data\n{FIRST_LOG}+ pulsar run model.onnx\n"
    assert read_report(Toolchain.PULSAR, FIRST_LOG).stopped == ""
    assert (
        read_report(Toolchain.PULSAR, f"{partial_log}+ chmod -R a+rwX .\n").stopped
        == "pulsar run model.onnx"
    )
    complete_log = f"{partial_log}tcc: every command is done\n+ chmod -R a+rwX .\n"
    for text in (complete_log, complete_log.replace("\n", "\r\n")):
        assert (read_report(Toolchain.PULSAR, text).stopped, len(read_report(Toolchain.PULSAR, text).layers)) == (
            "", 2)  # fmt: skip
    build_log = read_report(Toolchain.PULSAR, "+ cd /data\r\n+ pulsar build --input model.onnx\r\n")
    assert (build_log.stopped, build_log.layers) == ("pulsar build --input model.onnx", ())


def test_a_nan_cosine_counts_as_low():
    text = FIRST_LOG.replace("0.9721", "nan")
    assert [
        (layer.name, layer.cosine)
        for layer in read_report(Toolchain.PULSAR, text).inaccurate_outputs
    ] == [("logits", 0.0)]
    assert read_report(Toolchain.PULSAR2, NEW.replace("0.97993", "nan")).outputs[0].cosine == 0.0


def test_unknown_tables_are_refused():
    """Headings without the tensor column, as another version may have."""
    with pytest.raises(UserError, match="compares layers"):
        read_report(Toolchain.PULSAR2, NEW.replace("Output Tensor", "Tensor"))


@pytest.mark.parametrize("piece", ["Layer:", "Layer: x ", "Layer:\n", "+ ", "│", '  Node "'])
def test_long_repetitive_logs_are_read_fast(piece):
    with pytest.raises(UserError):
        read_report(Toolchain.PULSAR, piece * 200_000)
    with pytest.raises(UserError):
        read_report(Toolchain.PULSAR2, piece * 200_000)


def test_tables_of_pulsar2_are_read_by_their_headings():
    old, new = (read_report(Toolchain.PULSAR2, text) for text in (OLD, NEW))
    assert (old.version, old.on_cpu, old.inaccurate_outputs) == ("1.8-beta1", ("cpu_1",), ())
    assert [(layer.name, layer.cosine) for layer in old.layers] == [
        ("474", 0.999932050704956),
        ("logits", 0.98),
    ]
    assert [(layer.name, layer.cosine) for layer in new.inaccurate_outputs] == [("logits", 0.97993)]


WRONG = {
    "the other tool's": (Toolchain.PULSAR, OLD, "the log has no line of Pulsar that compares"),
    "nothing": (Toolchain.PULSAR2, "", "the log has no line of Pulsar2 that compares"),
    "no numbers": (Toolchain.PULSAR, "Layer: logits  2-norm RE: 4.70%  cosine-sim: ---", "the log has no line"),
    "another network's": (Toolchain.PULSAR, FIRST_LOG.replace("logits", "other"), "no comparison of the network's output"),
    "cut off": (Toolchain.PULSAR2, OLD.partition("Gemm")[0], "no comparison of the network's output `logits`"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_logs_without_the_network_are_refused(case):
    toolchain, text, message = WRONG[case]
    with pytest.raises(UserError) as error:
        read_report(toolchain, text)
    (diagnostic,) = error.value.diagnostics
    assert (diagnostic.code, message in diagnostic.message) == ("E0671", True)
