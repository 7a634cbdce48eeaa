"""`tcc check`, `tcc show` and `tcc fmt`."""

import json
import os
import pty
import re
import stat
import subprocess
import sys
import termios

import onnx
import pytest

TABLE = """\
layer            op               inputs           output  params   MACs  bytes
conv             conv             image            4x8x8      112  6,912  1,024
batch_norm       batch_norm       conv             4x8x8        8      0  1,024
relu             relu             batch_norm       4x8x8        0      0  1,024
global_avg_pool  global_avg_pool  relu             4x1x1        0      0     16
flatten          flatten          global_avg_pool  4            0      0     16
linear           linear           flatten          3           15     12     12

tiny: 6 layers, 135 parameters (and 8 statistics), 6,924 MACs
weights 572 B in float32, activations at most 2.0 KB at once
tests: 1 of 1 passed
"""

ROWS = [
    ["repeat_3/basic_block", "9 layers", "repeat_2"],
    ["conv_bn_1", "3 layers", "../../repeat_2"],
    ["conv", "conv", "../../../repeat_2"],
    ["batch_norm", "batch_norm", "conv"],
    ["activation", "relu", "batch_norm"],
    ["conv_bn_2", "2 layers", "conv_bn_1"],
    ["conv", "conv", "../conv_bn_1"],
    ["batch_norm", "batch_norm", "conv"],
    ["conv_bn_3", "2 layers", "../../repeat_2"],
    ["conv", "conv", "../../../repeat_2"],
    ["batch_norm", "batch_norm", "conv"],
    ["add", "add", "conv_bn_2, conv_bn_3"],
]
"""A ResNet block with stride 2: both branches read the same input."""

DEEP = """\
tcc: 1
name: deep
input:
  image: {shape: [3, 128, 128]}
blocks:
  a_block_with_a_long_name: {body: [another_such_block]}
  another_such_block: {body: [conv: {filters: 64, kernel: 3}, relu]}
graph: [a_block_with_a_long_name]
output: {value: {}}
allow: [no-preprocess]
"""


class TestCheck:
    def test_check_prints_layers_and_totals(self, tcc):
        outcome = tcc("check", "tiny.yaml")
        assert (outcome.code, outcome.out, outcome.err) == (0, TABLE, "")

    def test_as_json(self, tcc):
        document = tcc("check", "tiny.yaml", "--json").document
        assert document["name"] == "tiny"
        assert document["params"] == {"classes": 3, "width": 4}
        assert document["layers"][0] == {
            "path": "conv",
            "op": "conv",
            "inputs": ["image"],
            "shape": [4, 8, 8],
            "params": 112,
            "macs": 6912,
            "activation_bytes": 1024,
        }
        assert document["totals"] == {
            "layers": 6,
            "params": 135,
            "buffers": 8,
            "macs": 6924,
            "weight_bytes": 572,
            "peak_activation_bytes": 2048,
        }
        assert [test["holds"] for test in document["tests"]] == [True]

    @pytest.mark.parametrize("name", ["ddsnet", "fastnet", "googlenet", "densenet121", "resnet34"])
    def test_zoo_networks_fit_a_screen(self, tcc, name):
        lines = tcc("check", name).out.splitlines()
        assert len(lines) <= 40
        assert "(--depth N opens more blocks, --layers all shows every layer)" in lines
        assert not any(line.startswith("...") for line in lines)

    def test_blocks_have_totals_and_inputs(self, tcc):
        lines = tcc("check", "ddsnet", "--depth", "2").out.splitlines()
        dense = next(line for line in lines if line.startswith("dense_1 "))
        assert dense.split() == [
            *("dense_1", "28", "layers", "max_pool", "192x56x56"),
            *("20,096", "57,602,048", "28,901,376"),
        ]
        second = next(line for line in lines if line.startswith("  repeat_2 "))
        assert second.split()[1:5] == ["7", "layers", "repeat_1", "128x56x56"]
        assert sum(line.startswith("  repeat_") for line in lines) == 16

    def test_totals_of_blocks_add_up(self, tcc):
        document = tcc("check", "ddsnet", "--json").document
        top = {layer["path"].split("/")[0] for layer in document["layers"]}
        blocks = {b["path"]: b for b in document["blocks"]}
        top_layers = [layer for layer in document["layers"] if layer["path"] in top]
        for key in ("params", "macs"):
            parts = sum(blocks[n][key] for n in top if n in blocks) + sum(
                o[key] for o in top_layers
            )
            assert parts == document["totals"][key]
        assert len(document["layers"]) == document["totals"]["layers"] == 133

    def test_layers_option_shows_every_layer(self, tcc):
        lines = tcc("check", "ddsnet", "--layers").out.splitlines()
        leaves = [
            line for line in lines if re.search(r"\d+x\d+x\d+ ", line) and " layers " not in line
        ]
        assert len(leaves) == 131  # two more layers have no feature map
        assert "opens more" not in "\n".join(lines)

    def test_input_names_are_relative_to_their_block(self, tcc):
        lines = tcc("check", "resnet18", "--layers").out.splitlines()
        start = next(i for i, line in enumerate(lines) if "repeat_3/basic_block" in line)
        rows = (re.split(r"  +", line.strip())[:3] for line in lines[start : start + 12])
        assert list(rows) == ROWS

    def test_long_flat_network_is_shortened_in_the_middle(self, tcc, home):
        text = (home / "tiny.yaml").read_text().replace("  - relu\n", "  - relu\n" * 90)
        (home / "tiny.yaml").write_text(text)
        lines = tcc("check", "tiny.yaml").out.splitlines()
        assert len(lines) < 40
        assert "... 63 more ..." in lines
        assert "..." not in tcc("check", "tiny.yaml", "--layers").out

    @pytest.mark.parametrize("depth", ["0", "-1", "x"])
    def test_depth_must_be_a_positive_number(self, tcc, depth):
        assert tcc("check", "tiny.yaml", "--depth", depth).code == 2

    def test_quiet_prints_nothing(self, tcc):
        assert tcc("check", "tiny.yaml", "-q").out == ""

    def test_set_changes_parameters(self, tcc):
        outcome = tcc("check", "tiny.yaml", "--set", "width=8", "--set", "classes=2", "--json")
        assert outcome.document["layers"][-1]["shape"] == [2]
        assert outcome.document["layers"][0]["params"] == 224

    def test_failing_spec_test_is_located(self, tcc, home):
        text = (home / "tiny.yaml").read_text().replace("params: 135", "params: 136")
        (home / "tiny.yaml").write_text(text)
        outcome = tcc("check", "tiny.yaml")
        assert outcome.code == 2
        assert "tests: 0 of 1 passed" in outcome.out
        assert "tiny.yaml:21:17" in outcome.err
        assert "expected 136, found 135" in outcome.err

    def test_failing_spec_test_is_in_the_json_document(self, tcc, home):
        text = (home / "tiny.yaml").read_text().replace("params: 135", "params: 136")
        (home / "tiny.yaml").write_text(text)
        outcome = tcc("check", "tiny.yaml", "--json")
        assert outcome.code == outcome.document["exit"] == 2
        assert outcome.document["totals"]["params"] == 135
        assert outcome.document["diagnostics"][0]["line"] == 21

    def test_all_errors_of_a_spec_are_shown(self, tcc, home):
        text = (home / "tiny.yaml").read_text()
        (home / "tiny.yaml").write_text(text.replace("- relu", "- rleu").replace("units", "unit"))
        outcome = tcc("check", "tiny.yaml")
        assert outcome.code == 2
        assert "did you mean `relu`?" in outcome.err
        assert "did you mean `units`?" in outcome.err
        assert outcome.err.endswith("2 errors\n")
        assert "Traceback" not in outcome.err

    @pytest.mark.parametrize("columns", [80, 120])
    def test_table_fits_the_terminal(self, home, columns):
        """If the line is too short, the columns of inputs and then bytes are left out."""
        (home / "deep.yaml").write_text(DEEP)
        outer, inner = pty.openpty()
        termios.tcsetwinsize(inner, (50, columns))
        program = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", program, "check", "deep.yaml"]
        env = os.environ | {"NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "", "LINES": ""}
        with subprocess.Popen(command, stdout=inner, stderr=inner, env=env) as child:
            os.close(inner)
            text = b""
            while True:
                try:
                    text += os.read(outer, 1 << 16)
                except OSError:
                    break
        os.close(outer)
        lines = text.decode().splitlines()
        assert child.returncode == 0
        assert max(map(len, lines)) <= columns
        assert ("inputs" in lines[0]) == (columns == 120)
        assert "\x1b" not in text.decode()


class TestSpec:
    def test_known_spec_name_is_accepted(self, tcc):
        assert "ddsnet: " in tcc("check", "ddsnet").out

    def test_misspelt_name_has_a_suggestion(self, tcc):
        outcome = tcc("check", "ddsnt")
        assert outcome.code == 2
        assert outcome.err.startswith(
            "error[E0608]: `ddsnt` is neither a file nor a known spec\n"
            "  --> command line: ddsnt\n"
            "   = help: did you mean `ddsnet`? known specs: "
        )

    def test_misspelt_file_has_a_suggestion(self, tcc):
        outcome = tcc("check", "tny.yaml")
        assert "the file `tny.yaml` does not exist" in outcome.err
        assert "did you mean `tiny.yaml`?" in outcome.err

    def test_folder_is_refused_as_a_spec(self, tcc, home):
        (home / "some").mkdir()
        assert "`some` is a folder, not a spec" in tcc("check", "some").err

    def test_folder_does_not_hide_a_known_name(self, tcc, home):
        (home / "ddsnet").mkdir()
        assert tcc("check", "ddsnet").code == 0

    @pytest.mark.parametrize("name", ["x" * 300, "~nobody", "a/b.yaml", "x" * 300 + ".yaml"])
    def test_impossible_file_names_are_refused(self, tcc, name):
        outcome = tcc("check", name)
        assert outcome.code == 2
        assert outcome.err.startswith("error[E0608]: ")

    def test_missing_spec_argument_is_refused(self, tcc):
        outcome = tcc("check")
        assert outcome.code == 2
        assert "no spec was given" in outcome.err


class TestShow:
    def test_show_prints_the_graph_of_the_spec(self, tcc):
        outcome = tcc("show", "tiny.yaml")
        assert outcome.code == 0
        assert outcome.out.startswith("graph tiny {\n  input %image : float32[3x8x8]\n")
        assert " = batch_norm(%conv)" in outcome.out

    def test_show_prints_the_fused_graph(self, tcc):
        outcome = tcc("show", "tiny.yaml", "--stage", "fused")
        assert "%batch_norm = conv(%image)" in outcome.out
        assert "batch_norm(" not in outcome.out

    def test_show_prints_the_canonical_spec(self, tcc, home):
        outcome = tcc("show", "tiny.yaml", "--stage", "spec")
        assert outcome.out == tcc("fmt", "-", input=(home / "tiny.yaml").read_bytes()).out

    def test_as_json(self, tcc):
        document = tcc("show", "tiny.yaml", "--json").document
        assert document["nodes"][0]["attributes"]["filters"] == 4
        assert document["nodes"][0]["line"] == 11

    @pytest.mark.parametrize("stage", ["float", "fused"])
    def test_show_writes_onnx(self, tcc, home, stage):
        args = ("show", "tiny.yaml", "--format", "onnx", "--stage", stage, "-o", "net.onnx")
        outcome = tcc(*args)
        assert (outcome.code, outcome.out) == (0, "")
        onnx.checker.check_model(onnx.load(home / "net.onnx"), full_check=True)
        assert tcc(*args).code == 0

    def test_onnx_needs_an_output_file(self, tcc):
        outcome = tcc("show", "tiny.yaml", "--format", "onnx")
        assert outcome.code == 2
        assert "add `-o FILE`" in outcome.err

    def test_show_replaces_only_its_own_files(self, tcc, home):
        assert tcc("show", "tiny.yaml", "-o", "graph.txt").code == 0
        assert tcc("show", "tiny.yaml", "-o", "graph.txt").code == 0
        for text in ("mine", "# A title for all\n", "graph of sales\n"):
            (home / "notes.txt").write_text(text)
            outcome = tcc("show", "tiny.yaml", "-o", "notes.txt")
            assert outcome.code == 2
            assert "error[E0602]: cannot replace this" in outcome.err
            assert (home / "notes.txt").read_text() == text

    def test_show_describes_a_bundle(self, tcc, built):
        outcome = tcc("show", built)
        assert outcome.code == 0
        assert outcome.out.startswith("# tiny for onnxruntime at fp32\n# spec ")
        assert "\n# the weights are random (seed 0): predictions mean nothing\n" in outcome.out
        assert "# output logits: 3 float32, softmax, classes: cat, dog, owl\n" in outcome.out
        assert "\ngraph tiny {\n" in outcome.out
        assert tcc("show", built, "--json").document["target"] == "onnxruntime"

    def test_text_of_a_bundle_is_replaced(self, tcc, built):
        assert tcc("show", built, "-o", "bundle.txt").code == 0
        assert tcc("show", built, "-o", "bundle.txt").code == 0

    def test_onnx_of_a_bundle_is_refused(self, tcc, built):
        assert tcc("show", built, "--format", "onnx", "-o", "x").code == 2


UNFORMATTED = b"# mine\nname:   x\ntcc:   1\n"
FORMATTED = b"# mine\ntcc: 1\nname: x\n"


class TestFmt:
    def test_fmt_rewrites_in_place_and_keeps_permissions(self, tcc, home):
        path = home / "messy.yaml"
        path.write_bytes(UNFORMATTED)
        path.chmod(0o600)
        outcome = tcc("fmt", "messy.yaml")
        assert (outcome.code, outcome.out) == (0, "changed messy.yaml\n")
        assert path.read_bytes() == FORMATTED
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        second_outcome = tcc("fmt", "messy.yaml")
        assert (second_outcome.code, second_outcome.out, second_outcome.err) == (
            0,
            "",
            "files already in canonical form: 1\n",
        )

    def test_fmt_check_changes_nothing_and_exits_with_1(self, tcc, home):
        (home / "messy.yaml").write_bytes(UNFORMATTED)
        (home / "neat.yaml").write_bytes(FORMATTED)
        outcome = tcc("fmt", "--check", "messy.yaml", "neat.yaml")
        assert (outcome.code, outcome.out) == (1, "would change messy.yaml\n")
        assert (home / "messy.yaml").read_bytes() == UNFORMATTED
        assert tcc("fmt", "--check", "neat.yaml").code == 0

    def test_as_json(self, tcc, home):
        (home / "messy.yaml").write_bytes(UNFORMATTED)
        outcome = tcc("fmt", "--check", "messy.yaml", "--json")
        assert outcome.code == 1
        assert outcome.document == {
            "files": ["messy.yaml"],
            "changed": ["messy.yaml"],
            "check": True,
        }

    def test_fmt_filters_standard_input(self, tcc):
        outcome = tcc("fmt", "-", input=UNFORMATTED)
        assert (outcome.code, outcome.out) == (0, FORMATTED.decode())
        assert tcc("fmt", "-", "--check", input=UNFORMATTED).code == 1
        assert tcc("fmt", "-", "--check", input=FORMATTED).code == 0

    def test_one_wrong_file_keeps_all_files_unchanged(self, tcc, home):
        (home / "messy.yaml").write_bytes(UNFORMATTED)
        (home / "broken.yaml").write_bytes(b"a: [")
        outcome = tcc("fmt", "messy.yaml", "broken.yaml", "missing.yaml")
        assert outcome.code == 2
        assert "broken.yaml:1:4" in outcome.err
        assert "missing.yaml" in outcome.err
        assert (home / "messy.yaml").read_bytes() == UNFORMATTED

    def test_standard_input_with_files_is_refused(self, tcc):
        assert tcc("fmt", "-", "tiny.yaml").code == 2

    def test_json_spec_stays_json(self, tcc, home):
        (home / "x.json").write_text('{"name": "x", "tcc": 1}')
        assert tcc("fmt", "x.json").code == 0
        assert json.loads((home / "x.json").read_text()) == {"tcc": 1, "name": "x"}


def test_many_errors_are_grouped_and_counted(tcc, home):
    head = (home / "tiny.yaml").read_text().partition("graph:")[0]
    op_lines = "".join(f"  - word{n}\n" for n in range(600))
    (home / "many.yaml").write_text(f"{head}output: {{logits: {{}}}}\ngraph:\n{op_lines}")
    outcome = tcc("check", "many.yaml", "--json")
    assert outcome.code == 2
    assert outcome.err.count("error[") == 1
    assert "   = 49 more like this: `word1` (many.yaml:13), `word2` (many.yaml:14), " in outcome.err
    assert outcome.err.count(" (many.yaml:") == 49
    assert outcome.err.endswith("and 550 more\n\n600 errors\n")
    document = json.loads(outcome.out)
    assert (len(document["diagnostics"]), document["more"]) == (50, 550)
    assert document["error"] == "600 errors"


@pytest.mark.parametrize("default", [".inf", "[1, [.nan]]", "[1e999]"])
def test_infinite_parameter_is_refused(tcc, home, default):
    text = (home / "tiny.yaml").read_text()
    text = text.replace("width: 4}", f"width: 4, other: {{type: list, default: {default}}}}}")
    (home / "odd.yaml").write_text(text if default[0] == "[" else text.replace("type: list, ", ""))
    outcome = tcc("check", "odd.yaml", "--json")
    assert outcome.code == 2
    (diagnostic,) = outcome.document["diagnostics"]
    assert (diagnostic["line"], diagnostic["code"]) == (
        3,
        "E0214" if default[0] == "[" else "E0213",
    )


def test_infinite_tolerance_is_refused(tcc, home):
    text = (home / "tiny.yaml").read_text().replace("params: 135", "params: 0 ± 1e999")
    (home / "odd.yaml").write_text(text)
    outcome = tcc("check", "odd.yaml")
    assert (outcome.code, outcome.err.partition("\n")[0]) == (
        2,
        "error[E0213]: the expected params must be a number",
    )
