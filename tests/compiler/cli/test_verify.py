"""`tcc verify`: replay goldens on the artifact, and compare bundles."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.compiler.bundle import manifest
from tcc.compiler.support import json_records
from tcc.compiler.support.external_tools import MissingTool, Tool

INT8 = ("build", "tiny.yaml", "--target", "onnxruntime", "--precision", "int8", "-q")


@pytest.fixture
def alter_outputs(monkeypatch):
    """Change the outputs of artifacts."""

    def change_outputs(change) -> None:
        original_infer = OnnxRuntime.infer

        def run(self, *arguments):
            return [{k: change(v) for k, v in o.items()} for o in original_infer(self, *arguments)]

        monkeypatch.setattr(OnnxRuntime, "infer", run)

    return change_outputs


def reseal_manifest(folder, change):
    """Change the manifest of a bundle, and seal it again."""
    path = folder / manifest.NAME
    changed_manifest = change(manifest.decode(path.read_bytes(), "manifest"))
    manifest_json = json_records.encode(replace(changed_manifest, seal=""))
    seal = hashlib.sha256(json.dumps(manifest_json, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**manifest_json, "seal": seal}))


def test_bundle_reproduces_its_goldens(tcc, built):
    outcome = tcc("verify", built)
    assert (outcome.code, outcome.err) == (0, "")
    head, *rows, uncompared = outcome.out.splitlines()
    assert "weights and scales not compared: to compare them, give --spec SPEC" in uncompared
    columns = ["bundle", "golden", "output", "differ", "max.", "difference", "relative"]
    assert head.split() == [*columns, "tolerance"]
    assert [row.split()[1:3] for row in rows] == [["1", "logits"], ["2", "logits"]]
    assert all(row.split()[-1] in ("agrees", "bit-exact") for row in rows)


def test_verify_as_json(tcc, built):
    document = tcc("verify", built, "--json").document
    (bundle_report,) = document["bundles"]
    assert (bundle_report["path"], bundle_report["target"], bundle_report["precision"]) == (
        str(built),
        "onnxruntime",
        "fp32",
    )
    assert bundle_report["tolerance"]["relative"] == 1e-4
    assert [comparison["golden"] for comparison in bundle_report["agreement"]] == ["1", "2"]
    assert all(
        0 <= comparison["differing"] <= comparison["values"] == 3
        for comparison in bundle_report["agreement"]
    )
    assert bundle_report["holds"] is True
    assert document["pairs"] == document["not_compared"] == []
    assert document["exit"] == 0


def test_differences_are_counted_and_measured(tcc, built, alter_outputs):
    alter_outputs(lambda v: v + np.array([0, 0.5, 0], np.float32))
    outcome = tcc("verify", built, "--json")
    assert outcome.code == 4
    assert f"error: {built}: the artifact does not reproduce its golden outputs" in outcome.err
    for comparison in outcome.document["bundles"][0]["agreement"]:
        assert comparison["differing"] >= 1
        assert comparison["largest"] == pytest.approx(0.5, rel=1e-4)
        assert comparison["difference"] == pytest.approx(
            comparison["largest"]
        )  # the outputs are below 1
        assert comparison["holds"] is False
    assert "DISAGREES" in tcc("verify", built).out


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_disagree(tcc, built, alter_outputs, value):
    alter_outputs(lambda v: v * np.float32(value))
    outcome = tcc("verify", built, "--json")
    assert outcome.code == 4
    assert {
        comparison["largest"] for comparison in outcome.document["bundles"][0]["agreement"]
    } == {None}


def test_output_of_another_size_is_refused(tcc, built, alter_outputs):
    alter_outputs(lambda v: v[:2])
    outcome = tcc("verify", built, built)
    assert outcome.code == 2
    assert "error[E0655]: the artifact's outputs do not match the bundle's manifest" in outcome.err
    assert "output `logits` is float32 2, not float32 3" in outcome.err


def test_int8_outputs_must_be_bit_exact(tcc, home, images, alter_outputs):
    assert tcc(*INT8, "--data", images).code == 0
    folder = "build/tiny-onnxruntime-int8"
    report = tcc("verify", folder, "--json").document["bundles"][0]
    assert [comparison["differing"] for comparison in report["agreement"]] == [0, 0]
    assert tcc("verify", folder).out.count("bit-exact") == 2
    alter_outputs(lambda v: np.nextafter(v, np.float32(9)))
    report = tcc("verify", folder, "--json")
    assert report.code == 4
    assert [e["differing"] for e in report.document["bundles"][0]["agreement"]] == [3, 3]


class TestPairs:
    def test_one_network_at_two_precisions(self, tcc, built):
        assert tcc("build", "tiny.yaml", "--target", "ort", "--precision", "fp16", "-q").code == 0
        outcome = tcc("verify", built, "build/tiny-onnxruntime-fp16", "--json")
        (pair,) = outcome.document["pairs"]
        assert (pair["first"], pair["output"], pair["inputs"]) == (str(built), "logits", 2)
        assert pair["exact"] is False
        assert 0 < pair["largest"] < 1e-2
        assert pair["cosine"] > 0.999
        assert pair["same"] == 2
        assert "2 of 2" in tcc("verify", built, "build/tiny-onnxruntime-fp16").out

    def test_pair_difference_is_measured_on_the_outputs(self, tcc, built, monkeypatch):
        other_bundle = built.with_name("other")
        shutil.copytree(built, other_bundle)
        original_infer = OnnxRuntime.infer

        def run(self, target, folder, source, images):
            offset = np.float32([3, 0, 0] if folder.parent == other_bundle else [0, 0, 0])
            return [
                {k: v + offset for k, v in o.items()}
                for o in original_infer(self, target, folder, source, images)
            ]

        monkeypatch.setattr(OnnxRuntime, "infer", run)
        (pair,) = tcc("verify", built, other_bundle, "--json").document["pairs"]
        assert pair["largest"] == pytest.approx(3, rel=1e-6)
        assert pair["differing"] == 2

    def test_two_int8_bundles_are_bit_exact(self, tcc, home, images):
        assert tcc(*INT8, "--data", images).code == 0
        assert tcc(*INT8, "--data", images, "--out", "again").code == 0
        folders = ("build/tiny-onnxruntime-int8", "again/tiny-onnxruntime-int8")
        outcome = tcc("verify", *folders, "--json")
        (pair,) = outcome.document["pairs"]
        assert (pair["exact"], pair["differing"], pair["largest"]) == (True, 0, 0)

    def test_int8_and_float_bundles_share_the_images(self, tcc, built, images):
        assert tcc(*INT8, "--data", images).code == 0
        (pair,) = tcc("verify", built, "build/tiny-onnxruntime-int8", "--json").document["pairs"]
        assert (pair["exact"], pair["inputs"]) == (False, 2)
        assert 0 < pair["largest"] < 0.2

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (("--seed", "3"), "their weights differ"),
            (("--set", "width=5"), "their specs differ"),
        ],
        ids=str,
    )
    def test_other_networks_are_not_compared(self, tcc, built, options, reason):
        build = ("build", "tiny.yaml", "--target", "ort", "--out", "other", "-q")
        assert tcc(*build, *options).code == 0
        document = tcc("verify", built, "other/tiny-onnxruntime-fp32", "--json").document
        assert document["pairs"] == []
        assert [skipped_pair["why"] for skipped_pair in document["not_compared"]] == [reason]

    def test_other_preprocessing_is_not_compared(self, tcc, built):
        other_bundle = built.with_name("other")
        shutil.copytree(built, other_bundle)

        def set_mean(original_manifest):
            contract = replace(original_manifest.input.preprocess, mean=(0.5, 0.5, 0.5))
            return replace(
                original_manifest, input=replace(original_manifest.input, preprocess=contract)
            )

        reseal_manifest(other_bundle, set_mean)
        outcome = tcc("verify", built, other_bundle)
        assert outcome.code == 2
        assert "its stored tensor differs from the preprocessed image" in outcome.err


class TestTargets:
    """One network on two targets."""

    @pytest.fixture(autouse=True)
    def litert(self):
        pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

    def test_float_bundles_of_two_targets(self, tcc, home):
        assert tcc("build", "tiny.yaml", "--target", "ort,tflite", "-q").code == 0
        folders = ("build/tiny-onnxruntime-fp32", "build/tiny-tflite-fp32")
        outcome = tcc("verify", *folders, "--json")
        assert outcome.code == 0, outcome.err
        (pair,) = outcome.document["pairs"]
        assert pair["largest"] < 1e-5
        assert pair["same"] == pair["inputs"] == 2

    def test_int8_bundles_of_two_targets(self, tcc, home, images):
        build = ("build", "tiny.yaml", "--precision", "int8", "--data", images, "-q")
        assert tcc(*build, "--target", "ort,tflite").code == 0
        folders = ("build/tiny-onnxruntime-int8", "build/tiny-tflite-int8")
        outcome = tcc("verify", *folders, "--json")
        assert outcome.code == 0, outcome.err
        for bundle_report in outcome.document["bundles"]:
            assert [comparison["differing"] for comparison in bundle_report["agreement"]] == [0, 0]
        # the last layer gives floats in one bundle and 8-bit integers in the other
        assert [pair["exact"] for pair in outcome.document["pairs"]] == [False]

    def test_two_targets_have_the_same_accuracy(self, tcc, home, images):
        assert tcc("build", "tiny.yaml", "--target", "ort,tflite", "-q").code == 0
        folders = ("build/tiny-onnxruntime-fp32", "build/tiny-tflite-fp32")
        first_document, second_document = (
            tcc("eval", f, "--data", images, "--json").document for f in folders
        )
        assert first_document["confusion"] == second_document["confusion"]
        assert second_document["target"] == "tflite"

    def test_model_that_cannot_be_loaded_is_reported(self, tcc, home):
        assert tcc("build", "tiny.yaml", "--target", "tflite", "-q").code == 0
        folder = home / "build/tiny-tflite-fp32"
        (folder / "model/model.tflite").write_bytes(b"TFL3")
        digest = hashlib.sha256(b"TFL3").hexdigest()

        def list_files(original_manifest):
            files = [
                replace(f, bytes=4, sha256=digest) if f.path == "model/model.tflite" else f
                for f in original_manifest.files
            ]
            return replace(original_manifest, files=tuple(files))

        reseal_manifest(folder, list_files)
        outcome = tcc("verify", folder)
        assert outcome.code == 2
        assert "error[E0651]: LiteRT cannot run the model" in outcome.err


def test_missing_runtime_is_reported(tcc, built, monkeypatch):
    tool = Tool("a-runtime", "run this", None, builds=False)

    def run(self, target, folder, *args):
        if folder.parent != built:
            raise MissingTool(tool)
        return original_infer(self, target, folder, *args)

    original_infer = OnnxRuntime.infer
    other_bundle = built.with_name("other")
    shutil.copytree(built, other_bundle)
    monkeypatch.setattr(OnnxRuntime, "infer", run)
    outcome = tcc("verify", other_bundle, built)
    assert outcome.code == 3
    assert "error: a-runtime is needed to run this, but it is not installed" in outcome.err
    assert "help: install it: pip install a-runtime" in outcome.err
    assert str(built) in outcome.out  # the other bundle is verified anyway
    document = tcc("verify", other_bundle, built, "--json").document
    assert [bundle_report["holds"] for bundle_report in document["bundles"]] == [None, True]
    assert document["bundles"][0]["missing"]["name"] == "a-runtime"


class TestWhatIsNoBundle:
    def test_all_invalid_bundles_are_listed(self, tcc, built, home):
        (built / "model/model.onnx").write_bytes(b"")
        outcome = tcc("verify", home, built, "nothing")
        assert outcome.code == 2
        assert outcome.err.count("error[E0620]: there is no bundle here") == 2
        assert "error[E0622]: a file of the bundle was changed" in outcome.err
        assert outcome.out == ""

    def test_unknown_target_is_reported(self, tcc, built):
        reseal_manifest(built, lambda m: replace(m, target="tin"))
        outcome = tcc("verify", built)
        assert outcome.code == 2
        assert "there is no target `tin`" in outcome.err

    @pytest.mark.parametrize(
        ("change", "label"),
        [
            ({"image": "../../one.png"}, "the bundle does not list ../../one.png"),
            ({"image": None}, "goldens/1: it has no image"),
            ({"tensor": "gone.bin"}, "the bundle does not list gone.bin"),
            ({"tensor": "manifest.json"}, "the bundle does not list manifest.json"),
            ({"outputs": {"logits": "goldens/1/input.bin"}}, "its tensor has"),
            ({"outputs": {"other": "goldens/1/output_0.bin"}}, "it has no output `logits`"),
            ({"outputs": {}}, "it has no output `logits`"),
            ({"name": "2"}, "goldens: `2` is listed 2 times"),
        ],
        ids=str,
    )
    def test_invalid_goldens_are_refused(self, tcc, built, change, label):
        def damage_goldens(original_manifest):
            first_case, *other_cases = original_manifest.goldens.cases
            cases = (replace(first_case, **change), *other_cases)
            return replace(
                original_manifest, goldens=replace(original_manifest.goldens, cases=cases)
            )

        reseal_manifest(built, damage_goldens)
        outcome = tcc("verify", built)
        assert outcome.code == 2, outcome.out
        assert "error[E0621]: the bundle's manifest is damaged" in outcome.err
        assert label in outcome.err


def test_tensor_input_is_verified(tcc, home):
    text = (home / "tiny.yaml").read_text()
    (home / "tiny.yaml").write_text(
        text.replace("    preprocess: {resize: {size: [8, 8], mode: stretch}}\n", "")
    )
    assert tcc("build", "tiny.yaml", "--target", "ort", "-q").code == 0
    folder = "build/tiny-onnxruntime-fp32"
    outcome = tcc("verify", folder, folder, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads((home / folder / "manifest.json").read_text())["input"]["preprocess"] is None
    assert outcome.document["pairs"][0]["inputs"] == 2


@pytest.mark.parametrize(
    ("output", "has_decision"),
    [("activation: softmax", True), ("activation: sigmoid", True), ("activation: none", False)],
)
def test_decisions_are_compared_if_the_output_has_them(tcc, home, output, has_decision):
    spec = (home / "tiny.yaml").read_text()
    head = spec[: spec.index("output:")]
    (home / "tiny.yaml").write_text(f"{head}output:\n  logits: {{{output}}}\n")
    for precision in ("fp32", "fp16"):
        args = ("build", "tiny.yaml", "--target", "onnxruntime", "--precision", precision)
        assert tcc(*args, "-q").code == 0
    folders = [f"build/tiny-onnxruntime-{precision}" for precision in ("fp32", "fp16")]
    (pair,) = tcc("verify", *folders, "--json").document["pairs"]
    assert pair["same"] == (pair["inputs"] if has_decision else None)


def swap_labels(original_manifest):
    """Swap the first two labels."""
    first_label, second_label, *other_labels = original_manifest.outputs[0].labels
    return replace(
        original_manifest,
        outputs=(
            replace(
                original_manifest.outputs[0], labels=(second_label, first_label, *other_labels)
            ),
        ),
    )


def crop_images(original_manifest):
    """Crop images instead of stretching them. Goldens with the input's size do not show it."""
    preprocess = original_manifest.input.preprocess
    contract = replace(preprocess, resize=replace(preprocess.resize, mode="cover"))
    return replace(original_manifest, input=replace(original_manifest.input, preprocess=contract))


@pytest.mark.parametrize(
    ("change", "label"), [(swap_labels, "labels"), (crop_images, "preprocessing")]
)
def test_bundles_of_one_spec_must_agree_on_labels_and_preprocessing(tcc, built, change, label):
    """A resealed forgery is consistent, but differs from the spec and from other bundles of it."""
    other_bundle = built.with_name("other")
    shutil.copytree(built, other_bundle)
    assert tcc("verify", built, other_bundle).code == 0
    reseal_manifest(other_bundle, change)
    assert tcc("verify", other_bundle).code == 0
    for args in (
        (built, other_bundle),
        (other_bundle, built),
        (other_bundle, "--spec", "tiny.yaml"),
    ):
        outcome = tcc("verify", *args)
        assert outcome.code == 2
        assert "error[E0664]" in outcome.err
        assert label in outcome.err
        assert str(other_bundle) in outcome.err


def test_untested_runtime_release_is_noted(tcc, built, monkeypatch):
    from tcc.compiler.support import external_tools
    from tcc.compiler.support.external_tools import ProvenRelease

    releases = (ProvenRelease("onnxruntime", "0.1", ("small",), ""),)
    monkeypatch.setattr(external_tools, "load_proven_releases", lambda: releases)
    outcome = tcc("verify", built, "--json")
    (note,) = outcome.document["notes"]
    assert note.endswith("was not tested for exact outputs; tested releases: 0.1")
    assert f"note: {note}" in outcome.err
    assert outcome.code == 0


def test_published_schema_matches_the_manifest(built):
    from importlib.resources import files

    from jsonschema import Draft202012Validator

    text = (files("tcc.spec") / "schema/manifest.schema.json").read_text()
    schema = Draft202012Validator(json.loads(text))
    manifest_json = json.loads((built / manifest.NAME).read_text())
    assert list(schema.iter_errors(manifest_json)) == []
    for invalid_manifest in (
        {**manifest_json, "tcc_bundle": 1},
        {**manifest_json, "more": 1},
        {name: value for name, value in manifest_json.items() if name != "goldens"},
        {**manifest_json, "files": [{**manifest_json["files"][0], "sha256": "0"}]},
        {**manifest_json, "outputs": "none"},
    ):
        assert len(list(schema.iter_errors(invalid_manifest))) >= 1


def test_invalid_bundle_does_not_stop_the_others(tcc, built, home):
    (home / "build/empty").mkdir()
    damaged = home / "build/damaged"
    shutil.copytree(built, damaged)
    (damaged / "model/model.onnx").write_bytes(b"other")
    outcome = tcc("verify", "build/empty", built, damaged)
    assert outcome.code == 2
    rows = [
        line
        for line in outcome.out.splitlines()
        if line.startswith(str(built)) and "logits" in line
    ]
    assert len(rows) == 2
    assert "not verified: 2 of 3 bundles" in outcome.out
    assert "error[E0620]" in outcome.err
    assert "error[E0622]" in outcome.err
    document = tcc("verify", "build/empty", built, damaged, "--json").document
    assert [bundle_report["path"] for bundle_report in document["bundles"]] == [str(built)]
    assert document["bundles"][0]["holds"] is True
    assert [d["code"] for d in document["diagnostics"]] == ["E0620", "E0622"]
    assert document["exit"] == 2


def test_disagreement_has_precedence_in_the_exit_code(tcc, built, home, alter_outputs):
    (home / "build/empty").mkdir()
    alter_outputs(lambda values: values + 1)
    outcome = tcc("verify", built, "build/empty")
    assert outcome.code == 4
    assert "does not reproduce its golden outputs" in outcome.err
    assert "error[E0620]" in outcome.err
