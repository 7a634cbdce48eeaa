"""`tcc build` and `tcc run`: from a spec to classes."""

import hashlib
import json
import math
import re

import numpy as np
import pytest

from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load

RANDOM_WARNING = "warning: the weights are random (seed 0): predictions mean nothing"


def read_tree(folder):
    file_paths = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in file_paths}


@pytest.fixture
def trained(home):
    """A weights file."""
    graph = load(home / "tiny.yaml").graph
    weights.write(home / "w.safetensors", weights.initialize_random(graph, 7))
    return home / "w.safetensors"


class TestBuild:
    def test_build_writes_a_bundle_and_reports_it(self, tcc, home):
        outcome = tcc("build", "tiny.yaml", "--target", "onnxruntime")
        assert outcome.code == 0
        assert outcome.err.startswith(RANDOM_WARNING)
        lines = outcome.out.splitlines()
        assert lines[0] == "build/tiny-onnxruntime-fp32"
        assert re.fullmatch(r"  model\.onnx: [\d.]+ KB; bundle with goldens: [\d.]+ KB", lines[1])
        assert lines[2].startswith("  agrees with the reference within ")
        assert len(lines) == 3
        assert (home / "build/tiny-onnxruntime-fp32/manifest.json").is_file()

    def test_verbose_lists_files_and_stages(self, tcc):
        lines = tcc("build", "tiny.yaml", "--target", "onnxruntime", "-v").out.splitlines()
        assert [line.split()[0] for line in lines[3:7]] == [
            "file",
            "bom.cdx.json",
            "goldens/1/image.png",
            "goldens/1/input.bin",
        ]
        stages = lines[lines.index("stage        seconds") + 1 :]
        assert [line.split()[0] for line in stages] == [
            "spec",
            "weights",
            "passes",
            "goldens",
            "onnxruntime",
            "write",
            "replay",
        ]

    def test_sizes_compare_files_of_one_target(self, tcc, home):
        build = ("build", "tiny.yaml", "--target", "ort")
        assert tcc(*build, "--precision", "fp32").code == 0
        bundle_report = tcc(*build, "--precision", "fp16", "--json").document["bundles"][0]
        small, full = (
            (home / f"build/tiny-onnxruntime-{p}/model/model.onnx").stat().st_size
            for p in ("fp16", "fp32")
        )
        assert (bundle_report["artifact_bytes"], bundle_report["artifact_bytes_fp32"]) == (
            small,
            full,
        )
        line = tcc(*build, "--precision", "fp16").out.splitlines()[1]
        assert f", {small / full:.1%} of {full / 1000:.1f} KB at fp32; " in line

    @pytest.mark.parametrize("option", ["-o", "--output", "--out"])
    def test_output_folder_option(self, tcc, home, option):
        assert tcc("build", "tiny.yaml", "--target", "ort", option, "here", "-q").code == 0
        assert (home / "here/tiny-onnxruntime-fp32/manifest.json").is_file()
        assert "--out " not in tcc("build", "--help").out

    def test_quiet_prints_only_the_folder_and_warnings(self, tcc):
        outcome = tcc("build", "tiny.yaml", "--target", "ort", "-q")
        assert outcome.out == "build/tiny-onnxruntime-fp32\n"
        assert outcome.err.startswith(RANDOM_WARNING)

    def test_as_json(self, tcc, home):
        document = tcc("build", "tiny.yaml", "--target", "ort", "--out", "here", "--json").document
        (bundle,) = document["bundles"]
        assert bundle["path"] == "here/tiny-onnxruntime-fp32"
        assert (bundle["model"], bundle["target"], bundle["precision"]) == (
            "tiny",
            "onnxruntime",
            "fp32",
        )
        assert bundle["weights"]["origin"] == "random"
        assert sum(file["bytes"] for file in bundle["files"]) == bundle["bytes"]
        assert "write" in document["seconds"]

    def test_build_is_reproducible(self, process, home):
        for number in (1, 2):
            outcome = process(
                *("build", "tiny.yaml", "--target", "onnxruntime", "--out", f"b{number}"),
                env={"PYTHONHASHSEED": str(number)},
            )
            assert outcome.code == 0
        assert read_tree(home / "b1") == read_tree(home / "b2")
        assert len(read_tree(home / "b1")) == 12

    def test_build_with_weights(self, tcc, home, trained):
        outcome = tcc("build", "tiny.yaml", "--target", "ort", "--weights", trained)
        digest = hashlib.sha256(trained.read_bytes()).hexdigest()
        assert (outcome.code, outcome.err) == (0, f"weights: {trained}, SHA-256 {digest}\n")
        manifest_json = json.loads((home / "build/tiny-onnxruntime-fp32/manifest.json").read_text())
        graph = load(home / "tiny.yaml").graph
        assert manifest_json["weights"] == {
            "origin": "file",
            "digest": weights.digest(weights.initialize_random(graph, 7)),
            "file": None,
            "seed": None,
            "notice": None,
        }

    def test_seeds_give_different_weights(self, tcc, home):
        digests = set()
        for seed in (0, 1):
            tcc("build", "tiny.yaml", "--target", "ort", "--seed", seed)
            manifest_json = json.loads(
                (home / "build/tiny-onnxruntime-fp32/manifest.json").read_text()
            )
            assert manifest_json["weights"]["seed"] == seed
            digests.add(manifest_json["weights"]["digest"])
        assert len(digests) == 2

    def test_weights_of_another_shape_are_refused(self, tcc, home, trained):
        args = ("build", "tiny.yaml", "--target", "ort", "--weights", trained)
        outcome = tcc(*args, "--set", "width=5")
        assert outcome.code == 2
        assert "E0504" in outcome.err
        assert not (home / "build").exists()

    def test_seed_with_weights_is_refused(self, tcc, trained):
        outcome = tcc("build", "tiny.yaml", "--target", "ort", "--weights", trained, "--seed", 1)
        assert outcome.code == 2
        assert "--weights and --seed cannot be combined" in outcome.err

    @pytest.mark.parametrize("targets", [",", "hots,ort,hots"])
    def test_wrong_target_is_reported_once(self, tcc, targets):
        outcome = tcc("build", "tiny.yaml", "--target", targets)
        assert outcome.code == 2
        assert outcome.err.count("error[E0605]") == 1

    def test_all_unknown_targets_and_precisions_are_reported(self, tcc):
        outcome = tcc("build", "tiny.yaml", "--target", "hots,onnxruntime", "--precision", "fp23")
        assert outcome.code == 2
        assert outcome.err.startswith(
            "error[E0605]: there is no target `hots`\n"
            "  --> command line: --target hots,onnxruntime\n"
            "   = help: did you mean `host`? known targets: onnxruntime, "
        )
        assert "error[E0606]: onnxruntime does not support precision `fp23`" in outcome.err
        assert "did you mean `fp32`?" in outcome.err

    def test_missing_target_is_refused(self, tcc):
        outcome = tcc("build", "tiny.yaml")
        assert outcome.code == 2
        assert "no target is given" in outcome.err

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("width", "a setting must have the form `name=value`"),
            ("=3", "a setting must have the form `name=value`"),
            ("wdith=3", "did you mean `width`?"),
            ("width=relu", "width"),
        ],
    )
    def test_wrong_setting_is_refused(self, tcc, setting, message):
        outcome = tcc("build", "tiny.yaml", "--target", "ort", "--set", setting)
        assert outcome.code == 2
        assert message in outcome.err

    def test_repeated_setting_is_refused(self, tcc):
        args = ("build", "tiny.yaml", "--target", "ort", "--set", "width=3", "--set", "width=4")
        assert "`width` is set twice" in tcc(*args).err

    def test_only_a_bundle_is_replaced(self, tcc, built):
        assert tcc("build", "tiny.yaml", "--target", "ort").code == 0
        (built / "notes.txt").write_text("mine")
        outcome = tcc("build", "tiny.yaml", "--target", "ort")
        assert outcome.code == 2
        assert "it has a file that does not belong to the bundle: notes.txt" in outcome.err
        assert (built / "notes.txt").read_text() == "mine"


class TestProject:
    @pytest.fixture
    def project(self, home, trained):
        (home / "tcc.toml").write_text(
            'spec = "tiny.yaml"\nweights = "w.safetensors"\ntargets = ["ort"]\nout = "made"\n'
        )
        return home

    def test_project_file_gives_defaults(self, tcc, project):
        outcome = tcc("build", "-q")
        assert (outcome.code, outcome.out, outcome.err) == (0, "made/tiny-onnxruntime-fp32\n", "")

    def test_project_file_applies_in_subfolders(self, tcc, project, monkeypatch):
        (project / "deep").mkdir()
        monkeypatch.chdir(project / "deep")
        assert tcc("build", "-q").code == 0
        assert (project / "made/tiny-onnxruntime-fp32").is_dir()

    def test_project_weights_apply_only_to_its_spec(self, tcc, project):
        (project / "other.yaml").write_text((project / "tiny.yaml").read_text())
        outcome = tcc("build", "other.yaml", "-q")
        assert outcome.code == 0
        assert outcome.err.startswith(RANDOM_WARNING)

    def test_set_overrides_project_parameters(self, tcc, project):
        with (project / "tcc.toml").open("a") as file:
            file.write("[params]\nwidth = 8\nclasses = 2\n")
        document = tcc("check", "--set", "classes=5", "--json").document
        assert document["params"] == {"classes": 5, "width": 8}

    def test_seed_overrides_project_weights(self, tcc, project):
        assert "random (seed 3)" in tcc("build", "--seed", 3, "-q").err

    def test_project_file_errors_have_a_location(self, tcc, project):
        text = (project / "tcc.toml").read_text()
        (project / "tcc.toml").write_text(text.replace("ort", "otr"))
        outcome = tcc("build")
        assert outcome.code == 2
        assert "there is no target `otr`" in outcome.err
        assert "--> tcc.toml:3:1" in outcome.err
        (project / "tcc.toml").write_text("spec = \n")
        outcome = tcc("check", "tiny.yaml")
        assert outcome.code == 2
        assert "--> tcc.toml:1:8" in outcome.err

    def test_project_spec_is_ignored_if_another_is_named(self, tcc, project):
        (project / "tcc.toml").write_text('spec = "missing.yaml"\n')
        assert tcc("check", "tiny.yaml").code == 0

    def test_missing_project_spec_is_located(self, tcc, project):
        (project / "tcc.toml").write_text('spec = "tny.yaml"\n')
        outcome = tcc("check")
        assert outcome.code == 2
        assert "--> tcc.toml:1:1" in outcome.err
        assert "did you mean `tiny.yaml`?" in outcome.err


class TestRun:
    def test_run_prints_classes_by_probability(self, tcc, built, picture):
        outcome = tcc("run", built, picture)
        assert outcome.code == 0
        assert outcome.err == f"{RANDOM_WARNING}\n"
        heading, *lines = outcome.out.splitlines()
        assert heading == str(picture)
        classes = {line.split()[0]: float(line.split()[1]) for line in lines}
        assert set(classes) == {"cat", "dog", "owl"}
        assert list(classes.values()) == sorted(classes.values(), reverse=True)
        assert abs(sum(classes.values()) - 1) < 2e-4

    def test_run_as_json_has_raw_values(self, tcc, built, picture):
        (prediction,) = tcc("run", built, picture, "--json").document["images"]
        logits = prediction["outputs"]["logits"]
        powers = [math.exp(v - max(logits["raw"])) for v in logits["raw"]]
        for class_row in logits["classes"]:
            assert class_row["value"] == pytest.approx(
                powers[class_row["index"]] / sum(powers), abs=1e-12
            )
        assert [c["label"] for c in logits["classes"]] == [
            ("cat", "dog", "owl")[c["index"]] for c in logits["classes"]
        ]

    def test_run_without_labels_prints_indices(self, tcc, home, picture):
        tcc("build", "tiny.yaml", "--target", "ort", "--set", "classes=7")
        outcome = tcc("run", "build/tiny-onnxruntime-fp32", picture, "--top", 2)
        lines = outcome.out.splitlines()[1:]
        assert len(lines) == 2
        assert all(line.split()[0] in "0123456" for line in lines)

    def test_sigmoid_and_several_outputs(self, tcc, home, picture):
        text = (home / "tiny.yaml").read_text()
        text = text.replace("  - relu\n", "  - {relu: {}, as: map}\n").replace(
            "name: tiny", "name: two"
        )
        head, _, _ = text.partition("output:")
        (home / "two.yaml").write_text(
            f"{head}output:\n  flags: {{activation: sigmoid}}\n  map: {{from: map}}\n"
        )
        assert tcc("build", "two.yaml", "--target", "ort").code == 0
        outcome = tcc("run", "build/two-onnxruntime-fp32", picture, "--json")
        outputs = outcome.document["images"][0]["outputs"]
        for class_row in outputs["flags"]["classes"]:
            raw = outputs["flags"]["raw"][class_row["index"]]
            assert class_row["value"] == pytest.approx(1 / (1 + math.exp(-raw)), abs=1e-12)
            assert class_row["label"] is None
        assert outputs["map"]["shape"] == [4, 8, 8]
        assert "classes" not in outputs["map"]
        text = tcc("run", "build/two-onnxruntime-fp32", picture).out
        assert "  flags\n" in text
        assert "  map\n  4x8x8 values from 0.0000 to " in text

    def test_run_on_a_folder_of_images(self, tcc, built, picture, home):
        (home / "images/b").mkdir(parents=True)
        for name in ("b/2.png", "1.PNG", "notes.txt"):
            (home / "images" / name).write_bytes(picture.read_bytes())
        document = tcc("run", built, "images", "--json").document
        assert [prediction["image"] for prediction in document["images"]] == [
            "images/1.PNG",
            "images/b/2.png",
        ]

    def test_more_images_than_one_batch(self, tcc, built, picture):
        predictions = tcc("run", built, *[picture] * 11, "--json").document["images"]
        assert len(predictions) == 11
        assert all(prediction == predictions[0] for prediction in predictions)

    def test_run_on_an_empty_folder_is_refused(self, tcc, built, home):
        (home / "none").mkdir()
        outcome = tcc("run", built, "none")
        assert outcome.code == 2
        assert "no image in this folder" in outcome.err

    def test_all_wrong_images_are_listed(self, tcc, built, home):
        (home / "x.png").write_text("no image")
        outcome = tcc("run", built, "x.png", "missing.png")
        assert outcome.code == 2
        assert "x.png" in outcome.err
        assert "missing.png" in outcome.err
        assert outcome.out == ""

    def test_run_refuses_images_for_a_tensor_input(self, tcc, home, picture):
        text = (home / "tiny.yaml").read_text()
        (home / "raw.yaml").write_text(
            text.replace("    preprocess: {resize: {size: [8, 8], mode: stretch}}\n", "")
        )
        assert tcc("build", "raw.yaml", "--target", "ort").code == 0
        outcome = tcc("run", "build/tiny-onnxruntime-fp32", picture)
        assert outcome.code == 2
        assert "this network does not take an image" in outcome.err

    def test_run_refuses_a_damaged_bundle(self, tcc, built, picture):
        (built / "model/model.onnx").write_bytes(b"")
        outcome = tcc("run", built, picture)
        assert (outcome.code, outcome.out) == (2, "")
        assert "error[E0622]: a file of the bundle was changed" in outcome.err
        assert "model/model.onnx" in outcome.err

    def test_run_refuses_a_folder_without_a_bundle(self, tcc, home, picture):
        outcome = tcc("run", home, picture)
        assert outcome.code == 2
        assert "error[E0620]: there is no bundle here" in outcome.err


def test_python_build_gives_the_same_bundle(tcc, built, home):
    import tcc as api

    spec = api.load(home / "tiny.yaml", classes=3)
    api_bundle = api.build(spec, "onnxruntime", out=home / "api")
    assert api_bundle.manifest.target == "onnxruntime"
    api_files = read_tree(api_bundle.folder)
    command_files = read_tree(built)
    differing_files = {
        "manifest.json",
        "model-card.md",
        "bom.cdx.json",
    }  # these files list the set parameters
    assert {k for k in api_files if api_files[k] != command_files[k]} == differing_files
    with pytest.raises(api.UserError, match="did you mean `ddsnet`"):
        api.load("ddsnt")
    with pytest.raises(api.UserError, match="E0605"):
        api.build("ddsnet", "nothing")


def test_run_on_golden_images_gives_the_golden_outputs(tcc, built):
    """`run` on a golden's image prints the golden's outputs."""
    manifest_json = json.loads((built / "manifest.json").read_text())
    for case in manifest_json["goldens"]["cases"]:
        (prediction,) = tcc("run", built, built / case["image"], "--json").document["images"]
        expected = np.frombuffer((built / case["outputs"]["logits"]).read_bytes(), "<f4")
        limit = manifest_json["goldens"]["tolerance"]["relative"] * np.abs(expected).max()
        np.testing.assert_allclose(
            prediction["outputs"]["logits"]["raw"], expected, atol=limit, rtol=0
        )
