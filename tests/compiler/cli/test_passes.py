"""`tcc passes`, and the options that select and verify passes."""

import pytest

from tcc.compiler.ir.graph import Model, exact_pass
from tcc.compiler.passes import INT8, PASSES, PIPELINES, format_pipeline


def list_op_names(outcome):
    return [
        line.split(" = ")[1].split("(")[0] for line in outcome.out.splitlines() if " = " in line
    ][:-1]


def test_passes_and_pipelines_are_listed(tcc):
    outcome = tcc("passes")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["pass", "bound", "what"]
    assert any(line.split()[:2] == ["pool_first", "0.0001"] for line in lines)
    assert any(line.split()[:2] == ["fuse_clamps", "exact"] for line in lines)
    assert f"ready: {format_pipeline(INT8)}" in lines


def test_list_as_names_and_as_json(tcc):
    assert tcc("passes", "--quiet").out.split() == [compiler_pass.name for compiler_pass in PASSES]
    document = tcc("passes", "--json").document
    (drop_pass,) = (
        compiler_pass
        for compiler_pass in document["passes"]
        if compiler_pass["name"] == "drop_train_only"
    )
    assert drop_pass == {
        "name": "drop_train_only",
        "bound": 0.0,
        "what": "Remove nodes that only training needs, and nodes that then reach no output.",
    }
    assert document["pipelines"].keys() == PIPELINES.keys()


def test_show_prints_each_stage(tcc, home):
    ops_by_stage = {
        s: list_op_names(tcc("show", "tiny.yaml", "--stage", s))
        for s in ("float", "fused", "ready")
    }
    assert ops_by_stage == {
        "float": ["conv", "batch_norm", "relu", "global_avg_pool", "flatten", "linear"],
        "fused": ["conv", "relu", "global_avg_pool", "flatten", "linear"],
        "ready": ["conv", "relu", "global_avg_pool", "conv", "flatten"],
    }


@pytest.mark.parametrize("stage", ["float", "fused", "ready"])
def test_passes_option_replaces_the_passes_of_the_stage(tcc, home, stage):
    outcome = tcc("show", "tiny.yaml", "--stage", stage, "--passes", "lower_batch_norm, fill_bias")
    assert list_op_names(outcome) == [
        "conv",
        "scale_shift",
        "relu",
        "global_avg_pool",
        "flatten",
        "linear",
    ]


def test_pipeline_name_stands_for_its_passes(tcc, home):
    outcome = tcc("show", "tiny.yaml", "--passes", "folded,lower_linear")
    assert list_op_names(outcome) == ["conv", "relu", "global_avg_pool", "conv", "flatten"]


@pytest.mark.parametrize("command", [("show",), ("build", "--target", "onnxruntime")])
def test_unknown_pass_has_a_suggestion(tcc, home, command):
    outcome = tcc(*command, "tiny.yaml", "--passes", "drop_train_only,pool_frist")
    assert outcome.code == 2
    assert outcome.err.startswith(
        "error[E0614]: there is no pass `pool_frist`\n"
        "  --> command line: --passes drop_train_only,pool_frist\n"
        "   = help: did you mean `pool_first`? known passes: drop_train_only, drop_identity, "
    )


def test_passes_are_refused_for_the_spec_stage(tcc, home):
    outcome = tcc("show", "tiny.yaml", "--stage", "spec", "--passes", "drop_train_only")
    assert outcome.code == 2
    assert "`--passes` has no effect: the stage `spec` is text, not a graph" in outcome.err


def test_verify_passes_detects_a_wrong_pass(tcc, home, monkeypatch):
    @exact_pass
    def fold_ahead(model: Model) -> Model:
        return Model(model.graph, {name: 2 * w for name, w in model.weights.items()})

    monkeypatch.setattr("tcc.compiler.passes.PIPELINES", {**PIPELINES, "fused": (fold_ahead,)})
    show_args = ("show", "tiny.yaml", "--stage", "fused")
    assert tcc(*show_args).code == 0
    outcome = tcc(*show_args, "--verify-passes")
    assert outcome.code == 1
    assert "fold_ahead changed `conv` by" in outcome.err
    ready_outcome = tcc("show", "tiny.yaml", "--stage", "ready", "--verify-passes")
    assert ready_outcome.code == 0
    verified_passes = [
        line.split()[1] for line in ready_outcome.err.splitlines() if line.startswith("verified ")
    ]
    assert verified_passes == [f"{compiler_pass.name}:" for compiler_pass in INT8]


def test_build_with_other_passes(tcc, home):
    build = ("build", "tiny.yaml", "--target", "onnxruntime")
    outcome = tcc(*build, "--passes", "fused,lower_linear", "--verify-passes", "--json")
    assert outcome.code == 0
    (bundle_report,) = outcome.document["bundles"]
    assert bundle_report["agreement"]
    assert all(comparison["holds"] for comparison in bundle_report["agreement"])
    show_outcome = tcc("show", bundle_report["path"], "--stage", "fused")
    assert list_op_names(show_outcome) == ["conv", "relu", "global_avg_pool", "conv", "flatten"]
    refused = tcc("show", bundle_report["path"], "--stage", "ready")
    assert refused.code == 2
    assert "a bundle contains its graph only as text, of the stages float and fused" in refused.err


def test_passes_that_change_the_input_are_refused_for_float(tcc, home):
    outcome = tcc("build", "tiny.yaml", "--target", "onnxruntime", "--passes", "raw_input")
    assert outcome.code == 2
    assert "error[E0615]: these passes change the network's input contract" in outcome.err
