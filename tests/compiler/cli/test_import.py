"""`tcc import` for ONNX files."""

import json
import os
import resource

import numpy as np
import onnx
import pytest
from onnx_nets import check_and_simplify, run_feeds
from safetensors.numpy import load_file

from tcc.compiler.importers.onnx_import import sandbox
from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx import lower

WITH_HINTS = ("--color", "rgb", "--mean", "0.5", "--std", ".2,.3,.4")
CAUTION = (
    "warning: an ONNX file does not contain the preprocessing: add the `preprocess` of the "
    "training to the input `image`, or predictions will be wrong\n"
)
TABLE = """\
ONNX node        operators           step             op               output
conv             Conv                conv             conv             4x8x8
batch_norm       BatchNormalization  batch_norm       batch_norm       4x8x8
relu             Relu                relu             relu             4x8x8
global_avg_pool  GlobalAveragePool   global_avg_pool  global_avg_pool  4x1x1
flatten          Flatten             flatten          flatten          4
logits           Gemm                linear           linear           3

net.yaml
weights.safetensors
"""
SPEC = """\
tcc: 1
name: net
doc: Imported from net.onnx.

input:
  image: {shape: [3, 8, 8]}

graph:
  - {conv: {filters: 4, kernel: 3, padding: 1}, id: conv}
  - {batch_norm: {}, id: batch_norm}
  - relu
  - global_avg_pool
  - flatten
  - {linear: {units: 3}, id: linear}

output:
  logits: {}

tests:
  params: 135
  macs: 6924
"""


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Import without child processes, which have their own tests."""
    if "process" not in request.fixturenames:
        monkeypatch.setattr(sandbox, "clean", check_and_simplify)
        monkeypatch.setattr(sandbox, "run_model", run_feeds)


@pytest.fixture
def net(home):
    """A third-party ONNX file in the working folder."""
    from tcc.compiler.data.weights import initialize_random
    from tcc.compiler.frontend.spec import load

    graph = load(home / "tiny.yaml").graph
    onnx.save(lower(Model(graph, initialize_random(graph))), home / "net.onnx")
    return "net.onnx"


def test_import_writes_a_spec_and_weights(tcc, home, net):
    outcome = tcc("import", net)
    assert (outcome.code, outcome.out) == (0, TABLE)
    assert (home / "net.yaml").read_text() == SPEC
    assert set(load_file(home / "weights.safetensors")) == {
        *(f"{layer}.{role}" for layer in ("conv", "linear") for role in ("weight", "bias")),
        *(f"batch_norm.{role}" for role in ("weight", "bias", "mean", "var")),
    }
    assert CAUTION in outcome.err
    assert "on random inputs, the outputs of the spec and the file differ by at most" in outcome.err


def test_import_in_a_separate_process(process, home, net):
    outcome = process("import", net)
    assert (outcome.code, outcome.out) == (0, TABLE)
    assert (home / "net.yaml").read_text() == SPEC


@pytest.mark.slow
def test_import_with_limited_address_space(process, home, net):
    """As on a shared machine. The required memory grows with the file."""

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))

    assert process("import", net, preexec_fn=limited).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("coerced", ["0", "1"])
def test_file_names_in_any_alphabet(process, home, net, coerced):
    """Also in the C locale, and with such a name for the folder of temporary files."""
    folder = home / "\u017c\u00f3\u0142\u0107"
    folder.mkdir()
    (home / net).rename(folder / "\u0144.onnx")
    env = {"LC_ALL": "C", "PYTHONUTF8": coerced, "TMPDIR": str(folder)}
    args = ("import", folder / "\u0144.onnx", "-o", folder / "\u0105.yaml", "-q")
    outcome = process(*args, env=env)
    assert outcome.code == 0
    assert "doc: Imported from" in (folder / "\u0105.yaml").read_text(encoding="utf-8")


def test_pipe_is_refused_immediately(process, home):
    os.mkfifo(home / "pipe.onnx")
    outcome = process("import", "pipe.onnx", timeout=300)
    assert outcome.code == 2
    assert "error[E0901]: cannot read the model: it is a pipe, not a file" in outcome.err


def test_imported_spec_checks_and_builds(tcc, home, net):
    labels = ("--labels", "cat,dog,big owl")
    assert tcc("import", net, *WITH_HINTS, *labels, "--name", "cats").code == 0
    checked = tcc("check", "net.yaml", "--json").document
    assert all(test["holds"] for test in checked["tests"])
    assert checked["name"] == "cats"
    args = ("build", "net.yaml", "--target", "onnxruntime", "--weights", "weights.safetensors")
    assert tcc(*args, "-q").code == 0
    manifest = json.loads((home / "build/cats-onnxruntime-fp32/manifest.json").read_text())
    assert manifest["outputs"][0]["labels"] == ["cat", "dog", "big owl"]
    assert manifest["input"]["preprocess"] == {
        "color": "rgb",
        "resize": {"size": [8, 8], "mode": "stretch"},
        "crop": None,
        "mean": [0.5],
        "std": [0.2, 0.3, 0.4],
        "raw": False,
    }


def test_scale_max_is_written_to_the_spec(tcc, home, net):
    assert tcc("import", net, "--scale", "max").code == 0
    assert "scale: max" in (home / "net.yaml").read_text()
    outcome = tcc("import", net, "--scale", "127")
    assert outcome.code == 2
    assert "'127' is not one of '255', 'max'" in outcome.err


def test_import_as_json(tcc, net):
    outcome = tcc("import", net, *WITH_HINTS, "--json")
    document = outcome.document
    assert document["output"] == "net.yaml"
    assert document["weights"] == "weights.safetensors"
    assert document["notes"] == []
    assert document["difference"] < 1e-6
    assert document["nodes"][1] == {
        "node": "batch_norm",
        "types": "BatchNormalization",
        "path": "batch_norm",
        "word": "batch_norm",
        "shape": [4, 8, 8],
    }
    assert "warning" not in outcome.err


def test_doubtful_preprocessing_options_are_reported(tcc, net):
    args = ("--color", "rgb", "--mean", "124,0.5,0.5")
    outcome = tcc("import", net, *args, "--json")
    assert [w["kind"] for w in outcome.document["warnings"]] == ["pixel-statistics"]
    message = "warning[W0541]: pixels between 0 and 1 cannot have the mean 124 [pixel-statistics]\n"
    assert f"{message}  --> net.yaml\n" in outcome.err


def test_doubtful_layers_of_the_file_are_allowed_in_the_spec(tcc, home, net):
    model = onnx.load(net)
    twice = onnx.helper.make_node("Relu", [model.graph.node[2].output[0]], ["twice"])
    model.graph.node.insert(3, twice)
    model.graph.node[4].input[0] = "twice"
    onnx.save(model, net)
    outcome = tcc("import", net, *WITH_HINTS, "-o", "net2.yaml", "--weights", "w.safetensors")
    assert outcome.code == 0, outcome.err
    assert "allow: [repeated-op]" in (home / "net2.yaml").read_text()
    assert tcc("check", "net2.yaml", "--strict").code == 0


def test_quiet_prints_the_paths_and_the_warning(tcc, net):
    outcome = tcc("import", net, "-q", "-o", "new/made.yaml")
    assert (outcome.code, outcome.out, outcome.err) == (
        0, "new/made.yaml\nnew/weights.safetensors\n", CAUTION
    )  # fmt: skip


def test_import_is_reproducible(tcc, home, net):
    for name in "ab":
        assert tcc("import", net, "-o", f"{name}/net.yaml", "-q").code == 0
    for file in ("net.yaml", "weights.safetensors"):
        assert (home / "a" / file).read_bytes() == (home / "b" / file).read_bytes()


@pytest.mark.parametrize("existing_file", ["net.yaml", "weights.safetensors"])
def test_import_replaces_no_file(tcc, home, net, existing_file):
    (home / existing_file).write_text("mine")
    outcome = tcc("import", net)
    assert outcome.code == 2
    assert "error[E0602]: cannot replace this: it already exists" in outcome.err
    assert (home / existing_file).read_text() == "mine"
    assert len([*home.iterdir()]) == 3


def test_unsupported_network_writes_nothing(tcc, home, net):
    model = onnx.load(net)
    model.graph.node[2].op_type = "Elu"
    onnx.save(model, net)
    outcome = tcc("import", net)
    assert outcome.code == 2
    assert outcome.err.startswith(
        "error[E0910]: Elu: tcc does not support this function\n"
        "  --> net.onnx: node `relu`\n"
        "   = help: train the network with a supported one: relu, "
    )
    assert {path.name for path in home.iterdir()} == {"net.onnx", "tiny.yaml"}


def test_network_that_scales_its_input_is_reported(tcc, net):
    model = onnx.load(net)
    half = onnx.numpy_helper.from_array(np.float32(0.5), "half")
    model.graph.initializer.append(half)
    scale = onnx.helper.make_node("Mul", ["image", "half"], ["scaled"])
    model.graph.node[0].input[0] = "scaled"
    model.graph.node.insert(0, scale)
    onnx.save(model, net)
    outcome = tcc("import", net, *WITH_HINTS)
    assert outcome.code == 0
    assert (
        "the network begins with a scaling of its input, which may already apply mean and std"
        in outcome.err
    )


def test_missing_libraries_are_named(tcc, net, monkeypatch):
    from tcc.compiler.importers import onnx_import

    monkeypatch.setattr(onnx_import, "REQUIRED_LIBRARIES", {"no_such_module": "onnxsim"})
    outcome = tcc("import", net)
    assert outcome.code == 3
    assert "onnxsim is needed to import ONNX files" in outcome.err
    assert "pip install 'tcc-compiler[import]'" in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "a b"), "error[E0601]: this is not a valid name of a network"),
        (
            ("--labels", "a,,b"),
            "error[E0601]: `--labels` has an empty or repeated value",
        ),
        (
            ("--labels", "a,b,a"),
            "error[E0601]: `--labels` has an empty or repeated value",
        ),
        (("--labels", "a,b"), "error[E0906]: the number of labels must be the number of classes"),
        (("--mean", "a"), "error[E0601]: `--mean` takes numbers, separated by commas"),
        (("--mean", "nan"), "error[E0601]: `--mean` takes numbers, separated by commas"),
        (("--mean", "1,2"), "error[E0905]: `mean` needs one number, or one per channel"),
        (("--std", "0"), "error[E0601]: `--std` takes numbers above 0, separated by commas"),
        (("--color", "gray"), "error[E0905]: `gray` images do not fit the input"),
        (("--shape", "3,8"), "error[E0601]: a shape is three positive integers C,H,W"),
        (
            ("--shape", f"3,8,{'9' * 5000}"),
            "error[E0601]: a shape is three positive integers C,H,W",
        ),
        (("--shape", "3,8,9"), "error[E0905]: --shape differs from the input size of the file"),
        (("--until", "nowhere"), "error[E0906]: no value of the file is called `nowhere`"),
    ],
)
def test_wrong_options_are_refused(tcc, home, net, options, message):
    outcome = tcc("import", net, *options)
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, message)
    assert not (home / "net.yaml").exists()


@pytest.fixture
def long_net(home):
    """An ONNX file with a spec over 64 KiB. Its layers differ, so `repeat` cannot shorten it."""
    rows = [f"v{n + 1} = LeakyRelu <alpha = {(n + 1) / 4096}> (v{n})" for n in range(2500)]
    kind = "float[1, 3, 4, 4]"
    text = f'<ir_version: 10, opset_import: ["" : 18]> g ({kind} v0) => ({kind} v2500) {{ '
    onnx.save(onnx.parser.parse_model(text + "\n".join(rows) + " }"), home / "long.onnx")
    return "long.onnx"


def test_large_spec_is_written_as_json(tcc, home, long_net):
    outcome = tcc("import", long_net, "--flat", "--quiet")
    assert (outcome.code, outcome.out) == (0, "long.json\nweights.safetensors\n")
    assert len((home / "long.json").read_bytes()) > 65_536
    assert not (home / "long.yaml").exists()
    assert tcc("check", "long.json", "--quiet").code == 0


def test_large_spec_is_refused_as_yaml(tcc, home, long_net):
    outcome = tcc("import", long_net, "--flat", "-o", "mine.yaml")
    assert outcome.code == 2
    assert "this spec is too large for YAML: it has" in outcome.err
    assert "write it as JSON: --output mine.json" in outcome.err
    assert not list(home.glob("mine.*"))


def test_json_file_name_gives_a_json_spec(tcc, home, net):
    assert tcc("import", net, "-o", "mine.json").code == 0
    assert json.loads((home / "mine.json").read_text())["graph"][2] == "relu"
    assert tcc("check", "mine.json", "--quiet").code == 0
