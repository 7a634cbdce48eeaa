"""`tcc check --target`: layers that a target cannot run, or runs slowly, before any training."""

import pytest

from tcc.compiler.targets import devices

HEAD = """\
tcc: 1
name: odd
input: {image: {shape: [3, 16, 16], preprocess: {resize: {size: [16, 16]}}}}
output: {classes: {}}
"""
END = "  - global_avg_pool\n  - flatten\n  - linear: {units: 2}\n"
STRIDED = HEAD + "graph:\n  - conv: {filters: 16, kernel: 11, stride: 4}\n  - gelu\n" + END
DEPTHWISE = (
    HEAD
    + "graph:\n  - conv: {filters: 16, kernel: 3, padding: 1}\n"
    + ("  - depthwise_conv: {kernel: 3, padding: 1}\n" * 3 + END)
)
CHIPS = ("ax620", "ax620e", "ax650")


@pytest.fixture
def spec(home):
    def write(text):
        (home / "odd.yaml").write_text(text)
        return "odd.yaml"

    return write


def test_check_reports_every_target(tcc):
    names = [device.name for device in devices.list_devices()]
    outcome = tcc("check", "tiny.yaml", "--target", ",".join(names), "--json")
    assert outcome.code == 0, outcome.err
    target_rows = outcome.document["targets"]
    assert [target_row["target"] for target_row in target_rows] == names
    assert all(target_row["refused"] == [] for target_row in target_rows)
    text = tcc("check", "tiny.yaml", "--target", "ort", "-q").out
    assert text == "onnxruntime at fp32: can run every layer\n"


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_check_reports_every_precision(tcc, target):
    (device,) = (
        known_device for known_device in devices.list_devices() if known_device.name == target
    )
    for kind in device.target.precisions:
        outcome = tcc("check", "tiny.yaml", "--target", target, "--precision", kind.name, "-q")
        assert (outcome.code, outcome.out) == (0, f"{target} at {kind.name}: can run every layer\n")


def test_unsupported_layers_have_line_rule_and_fix(tcc, spec):
    outcome = tcc("check", spec(STRIDED), "--target", "ax620,ax650")
    assert outcome.code == 2
    assert outcome.out.splitlines()[-2:] == [
        "ax620 at int8: cannot run 2 layers", "ax650 at int8: can run every layer",
    ]  # fmt: skip
    stride, _, gelu = outcome.err.partition("error[E0607]: ax620 cannot run `gelu` (gelu)\n")
    stride = stride[stride.index("error[E0607]") :].splitlines()
    assert stride[:2] == [
        "error[E0607]: ax620 cannot run `conv` (conv)", " --> odd.yaml:6:5",
    ]  # fmt: skip
    assert stride[4].endswith("^^^^ its stride is 4x4, its kernel 11x11")
    assert stride[5] == (
        "   = rule conv.stride: strides are 1x1, 1x2, 2x1, 2x2, 3x3 or the kernel's size"
        " (pulsar-docs f391cff, csv/Conv_OP.csv)"
    )
    assert stride[6] == "   = help: use stride 1 or 2, and pool for the rest"
    assert gelu.splitlines()[0] == " --> odd.yaml:7:5"
    assert "Erf is not listed" in gelu
    assert "`silu` or `hard_swish`" in gelu


def test_unsupported_layers_as_json(tcc, spec):
    outcome = tcc("check", spec(STRIDED), "--target", "ax620", "--json")
    assert (outcome.code, outcome.document["exit"]) == (2, 2)
    assert [refusal["code"] for refusal in outcome.document["diagnostics"]] == ["E0607", "E0607"]
    (answer,) = outcome.document["targets"]
    assert [(refusal["layer"], refusal["line"]) for refusal in answer["refused"]] == [
        ("conv", 6),
        ("gelu", 7),
    ]
    assert answer["refused"][0]["rule"].startswith("rule conv.stride")
    assert answer["precision"] == "int8"


def test_slow_layers_are_reported_once_per_rule(tcc, spec):
    outcome = tcc("check", spec(DEPTHWISE), "--target", "ax620")
    assert outcome.code == 0
    warning = outcome.err[outcome.err.index("warning[W0662]") :].splitlines()
    assert warning[0] == "warning[W0662]: ax620 runs `depthwise_conv_1` (conv) slowly"
    assert warning[1] == " --> odd.yaml:7:5"
    assert "depthwise convolutions run at 1/16 of the NPU's speed" in warning[5]
    assert warning[6] == "   = 2 more layers: depthwise_conv_2, depthwise_conv_3"
    assert outcome.err.count("1/16") == 1
    (answer,) = tcc("check", "odd.yaml", "--target", "ax620", "--json").document["targets"]
    depthwise = [slow_layer for slow_layer in answer["slow"] if "1/16" in slow_layer["rule"]]
    assert [slow_layer["line"] for slow_layer in depthwise] == [7, 8, 9]
    assert tcc("check", "odd.yaml", "--target", "ax620", "-q").err == ""


def test_layers_that_may_run_on_the_cpu_are_reported(tcc, spec):
    text = HEAD + "graph:\n  - softmax\n" + END
    outcome = tcc("check", spec(text), "--target", "ax620")
    assert outcome.code == 0
    assert (
        "warning[W0661]: ax620 may be unable to run `softmax` (softmax)\n --> odd.yaml:6:5"
        in outcome.err
    )
    assert "it may run on the CPU" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "ax62"], "error[E0605]: there is no target `ax62`"),
        (
            ["--target", "ax620", "--precision", "int4"],
            "error[E0606]: ax620 does not support precision `int4`",
        ),
        (["--target", "tflite,arm-a7,onnxruntim"], "did you mean `onnxruntime`?"),
    ],
)
def test_wrong_arguments_are_refused(tcc, arguments, message):
    outcome = tcc("check", "tiny.yaml", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


GREY = "input: {image: {shape: [1, 16, 16], preprocess: {color: gray, resize: {size: [16, 16]}}}}"
FIRST_CONV = "  - {conv: {filters: 16, kernel: 3, padding: 1}, as: early}"
ODD = {
    "grey": STRIDED.replace(HEAD.splitlines()[2], GREY).replace("kernel: 11, stride: 4", "kernel: 3")
    .replace("gelu", "relu"),
    "wide": DEPTHWISE.replace("[3, 16, 16]", "[3, 9, 31]").replace("[16, 16]", "[9, 31]"),
    "no preprocessing": DEPTHWISE.replace(
        "{shape: [3, 16, 16], preprocess: {resize: {size: [16, 16]}}}", "{shape: [5, 7, 9]}"
    ),
    "two outputs": DEPTHWISE.replace(
        "output: {classes: {}}", "output: {classes: {}, map: {from: early}}"
    ).replace("  - conv: {filters: 16, kernel: 3, padding: 1}", FIRST_CONV),
    "vectors": HEAD.replace("[3, 16, 16], preprocess: {resize: {size: [16, 16]}}", "[12, 1, 1]")
    + "graph:\n  - flatten\n  - linear: {units: 4}\n  - relu\n  - linear: {units: 2}\n",
    "one pixel": DEPTHWISE.replace("[3, 16, 16]", "[3, 1, 1]").replace("[16, 16]", "[1, 1]"),
    "scale": HEAD + "graph:\n  - scale: {factor: 2}\n",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_unusual_networks_can_run(tcc, spec, name):
    outcome = tcc("check", spec(ODD[name]), "--target", ",".join(CHIPS), "-q")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("can run every layer") == len(CHIPS)


@pytest.mark.parametrize("body", ["identity", "dropout", "slice: {}"])
@pytest.mark.parametrize("command", [("check",), ("build", "--data", "nowhere")])
def test_network_without_layers_to_run_is_refused(tcc, spec, body, command):
    outcome = tcc(*command, spec(HEAD + f"graph: [{body}]\n"), "--target", "ax620,ax650")
    assert outcome.code == 2
    op_name, _, _ = body.partition(":")
    for target in ("ax620", "ax650"):
        message = f"error[E0607]: {target} cannot run `{op_name}` ({op_name})\n --> odd.yaml:5:9\n"
        assert message in outcome.err
    assert outcome.err.count("the network has no layer to run") == 2


def test_locations_include_block_names(tcc, spec):
    text = HEAD.replace("name: odd\n", "name: odd\nblocks:\n  gate: {body: [gelu]}\n")
    text += "graph:\n  - gate\n  - gate\n" + END
    outcome = tcc("check", spec(text), "--target", "ax620")
    assert outcome.code == 2
    assert "ax620 cannot run `gate_1/gelu` (gelu)\n --> odd.yaml:4:17\n" in outcome.err
    assert "ax620 at int8: cannot run 2 layers" in outcome.out


def test_build_refuses_layers_before_reading_weights_or_images(tcc, spec, home):
    args = ("--weights", "nowhere.safetensors", "--data", "nowhere")
    outcome = tcc("build", spec(STRIDED), "--target", "ax620", *args)
    assert outcome.code == 2
    assert outcome.err.count("error[E0607]") == 2
    assert "nowhere" not in outcome.err.replace("command line", "")
    assert not (home / "build").exists()


@pytest.mark.parametrize("command", [("check",), ("build", "--data", ".")])
def test_network_with_its_input_as_output_is_refused(tcc, home, command):
    """The output is the input, and its only layer is unused."""
    text = "graph: [relu]\noutput: {image: {}}\ninput: {image: {shape: [3, 4, 4]}}\n"
    (home / "none.yaml").write_text(f"tcc: 1\nname: none\n{text}")
    outcome = tcc(command[0], "none.yaml", "--target", "ax620,ax650", *command[1:])
    assert (outcome.code, "error[E0607]: ax620 cannot run this network" in outcome.err) == (2, True)
