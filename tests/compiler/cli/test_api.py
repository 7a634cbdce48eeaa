"""`tcc.calibrate`, `tcc.build` and the other Python functions."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tcc
from tcc.compiler.cli import app
from tcc.compiler.data.dataset import read_dataset as read_set
from tcc.compiler.quant.calibration_document import read_document

IGNORE_CALIBRATION_WARNINGS = pytest.mark.filterwarnings("ignore::tcc.CalibrationWarning")


@IGNORE_CALIBRATION_WARNINGS
def test_calibrate_writes_a_file(home, images):
    spec = tcc.load("fastnet_block")
    calibration = tcc.calibrate(spec, images, "ax620", out=home / "c.json", method="minmax")
    assert (calibration.target, calibration.method, calibration.data.images) == (
        "ax620",
        "minmax",
        24,
    )
    reread_calibration = read_document(home / "c.json")
    assert reread_calibration.values == calibration.values


def test_unknown_method_has_a_suggestion(images):
    with pytest.raises(tcc.UserError, match="did you mean `mse`"):
        tcc.calibrate("fastnet_block", images, method="msee")


def test_too_few_images_are_refused(images):
    with pytest.raises(tcc.UserError, match="at least 25 different images"):
        tcc.calibrate("fastnet_block", images, method="minmax", min_images=25)


def test_calibrate_warns_like_the_command(home, images):
    """The same texts, those about images first. A caller can ignore them by their class."""
    (images / "notes.txt").write_text("none of these is an image")
    few_images = read_set(images).select_first(3)
    for number, item in enumerate(few_images.items):
        path = home / "few" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(item.path.read_bytes())
    for data in ("few", str(images)):
        with pytest.warns(tcc.CalibrationWarning) as caught_warnings:
            tcc.calibrate("tiny.yaml", data, seed=0)
        outcome = CliRunner().invoke(app, f"calibrate tiny.yaml --data {data} --seed 0".split())
        assert outcome.exit_code == 0, outcome.stderr
        stderr_text = outcome.stderr
        for caught_warning in caught_warnings:
            assert " ".join(str(caught_warning.message).split()) in " ".join(stderr_text.split())
            assert caught_warning.filename == __file__
        assert len(caught_warnings) == stderr_text.count("warning:") + stderr_text.count("note[")
    assert any(
        "no images" in str(caught_warning.message) or "notes.txt" in str(caught_warning.message)
        for caught_warning in caught_warnings
    )


@IGNORE_CALIBRATION_WARNINGS
def test_int8_is_built_from_images_or_a_calibration_file(home, images):
    calibrated_bundle = tcc.build(
        "tiny.yaml", "onnxruntime", out="a", precision="int8", data=images
    )
    calibration = calibrated_bundle.manifest.calibration
    assert calibration.measured.outputs["logits"].cosine > 0.999
    tcc.calibrate("tiny.yaml", images, out="c.json")
    bundle_from_file = tcc.build(
        "tiny.yaml", "onnxruntime", out="b", precision="int8", calibration="c.json"
    )
    first_model, second_model = (
        b.model.joinpath("model.onnx").read_bytes() for b in (calibrated_bundle, bundle_from_file)
    )
    assert first_model == second_model
    mixed = tcc.build(
        "tiny.yaml",
        "ort",
        out="c",
        precision="int8",
        data=images,
        floors={"min_cosine": 1 - 1e-13},
        mixed=True,
    )
    assert mixed.manifest.calibration.in_float


def collect_warnings(record):
    """Return the texts of Python warnings. Each has the caller's line."""
    assert all(caught_warning.category is tcc.CalibrationWarning for caught_warning in record)
    assert {caught_warning.filename for caught_warning in record} <= {__file__}
    return [str(caught_warning.message) for caught_warning in record]


def test_build_warns_like_calibrate(home, images):
    (images / "notes.txt").write_text("none of these is an image")
    with pytest.warns(tcc.CalibrationWarning) as record:
        tcc.calibrate("tiny.yaml", images, out="c.json")
    expected_messages = collect_warnings(record)
    with pytest.warns(tcc.CalibrationWarning) as record:
        tcc.build("tiny.yaml", "onnxruntime", precision="int8", data=images)
    assert collect_warnings(record) == expected_messages
    # Warnings of a calibration file were shown when it was made; those of the images are new.
    with pytest.warns(tcc.CalibrationWarning) as record:
        tcc.build("tiny.yaml", "ort", precision="int8", data=images, calibration="c.json")
    assert collect_warnings(record) == [
        message for message in expected_messages if "notes.txt" in message
    ]


@IGNORE_CALIBRATION_WARNINGS
def test_several_targets_share_one_calibration(home, images):
    """Same bytes and agreement as `--target` with commas."""
    options = {"precision": "int8", "data": images, "method": "minmax", "floors": {"min_cosine": 0}}
    build_set = tcc.build(
        "tiny.yaml", ["onnxruntime", "tflite", "ax620", "ort"], out="a", **options
    )
    line = "build tiny.yaml --target onnxruntime,tflite,ax620 --precision int8 --data set"
    outcome = CliRunner().invoke(
        app, f"{line} --method minmax --floor min_cosine=0 -o b --json".split()
    )
    assert outcome.exit_code == 0, outcome.stderr
    names = [f"tiny-{target}-int8" for target in ("onnxruntime", "tflite", "ax620")]
    assert [member.folder.name for member in build_set.bundles] == names
    for name in names:
        file_paths = sorted(p.relative_to("a") for p in Path("a", name).rglob("*") if p.is_file())
        assert len(file_paths) > 5
        for path in file_paths:
            assert Path("a", path).read_bytes() == Path("b", path).read_bytes(), path
    agreement = json.loads(outcome.stdout)["agreement"]
    assert build_set.holds is agreement["holds"] is True
    for target_report, target_json in zip(build_set.targets, agreement["targets"], strict=True):
        assert target_report.device.name == target_json["target"]
        assert len(target_report.layers or ()) == len(target_json["layers"] or ())
        assert (
            sum(member.values for member in target_report.outputs)
            == target_json["outputs"]["values"]
        )
    assert [target_report.holds for target_report in build_set.targets] == [True, True, None]
    (pair,) = build_set.pairs
    assert pair.comparison.values == agreement["pairs"][0]["values"] > 0


def test_several_float_targets_and_an_empty_list(home):
    build_set = tcc.build("tiny.yaml", ("onnxruntime", "tflite"))
    assert [member.manifest.precision for member in build_set.bundles] == ["fp32", "fp32"]
    assert build_set.holds
    with pytest.raises(tcc.UserError, match=r"E0605.*no target"):
        tcc.build("tiny.yaml", [])
    with pytest.raises(tcc.UserError) as error_info:
        tcc.build("tiny.yaml", ["onnxruntime", "arm-a8", "tflight"])
    assert [member.code for member in error_info.value.diagnostics] == ["E0605", "E0605"]


@pytest.mark.parametrize("target", ["onnxruntime", ["onnxruntime", "tflite"]])
def test_disagreeing_artifact_is_not_written(target, home, monkeypatch):
    from tcc.compiler.bundle import replay

    run = replay._run_goldens
    shift_outputs = lambda *args: [{n: v + 1 for n, v in outputs.items()} for outputs in run(*args)]  # noqa: E731
    monkeypatch.setattr(replay, "_run_goldens", shift_outputs)
    with pytest.raises(tcc.Disagreement, match="onnxruntime: the built artifact does not match"):
        tcc.build("tiny.yaml", target)
    assert not list(home.glob("build/*"))


@IGNORE_CALIBRATION_WARNINGS
def test_int8_below_the_floor_is_refused(home, images):
    with pytest.raises(tcc.BelowFloor, match="the mean cosine of `logits` is"):
        tcc.build(
            "tiny.yaml", "onnxruntime", precision="int8", data=images, floors={"min_cosine": 1.0}
        )
    assert not (home / "build").exists()


def test_int8_needs_images(home):
    with pytest.raises(tcc.UserError, match="no images to calibrate"):
        tcc.build("tiny.yaml", "onnxruntime", precision="int8")


def test_module_trains_and_its_weights_build(home):
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    network = tcc.torch("tiny.yaml")
    x = torch.randn(4, *network.graph.inputs[0].type.shape)
    network.train()(x)["logits"].square().sum().backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    tcc.save_weights(torch.optim.swa_utils.AveragedModel(network), "w.safetensors")
    reloaded_network = tcc.torch("tiny.yaml", "w.safetensors")
    assert list(reloaded_network.state_dict()) == list(network.state_dict())
    for name, values in reloaded_network.state_dict().items():
        assert torch.equal(values, network.state_dict()[name])
    bundle = tcc.build("tiny.yaml", "onnxruntime", weights="w.safetensors")
    assert bundle.manifest.weights.notice is None


def test_save_weights_refuses_other_modules(home):
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    with pytest.raises(tcc.UserError, match=r"E0516.*one network from a spec, not 0"):
        tcc.save_weights(torch.nn.Linear(2, 2), "w.safetensors")
    network = tcc.torch("tiny.yaml")
    with pytest.raises(tcc.UserError, match=r"E0516.*one network from a spec, not 2"):
        tcc.save_weights(torch.nn.ModuleList([network, tcc.torch("tiny.yaml")]), "w.safetensors")
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(tcc.UserError, match="E0506"):
        tcc.save_weights(network, "w.safetensors")
    assert not (home / "w.safetensors").exists()


def test_missing_torch_is_reported(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(tcc.MissingTool, match=r"pip install 'tcc-compiler\[train\]'"):
        tcc.torch("ddsnet")


def test_check_needs_no_weights(home):
    check_report = tcc.check("tiny.yaml", ["onnxruntime", "arm-a7"], precision="int8")
    assert check_report.holds
    assert check_report.cost.params == 135
    assert [member.plan.device.name for member in check_report.capabilities] == [
        "onnxruntime",
        "arm-a7",
    ]
    text = (home / "tiny.yaml").read_text()
    (home / "other.yaml").write_text(text.replace("params: 135", "params: 136"))
    failed_report = tcc.check("other.yaml")
    assert not failed_report.holds
    assert [(member.code, member.at.line) for member in failed_report.errors] == [
        ("E0240", len(text.splitlines()))
    ]
    with pytest.raises(tcc.UserError, match="E0605"):
        tcc.check("tiny.yaml", "arm-a8")


def test_unsupported_layer_is_an_error_in_check_and_lower(home):
    text = (home / "tiny.yaml").read_text().replace("  - relu\n", "  - gelu\n")
    (home / "gelu.yaml").write_text(text)
    (diagnostic,) = tcc.check("gelu.yaml", "ax620", precision="int8").errors
    assert (diagnostic.code, diagnostic.at.line) == (
        "E0607",
        text.splitlines().index("  - gelu") + 1,
    )
    assert tcc.check("gelu.yaml", "onnxruntime").holds


def test_lower_gives_the_model_of_the_artifact(home, images):
    fp32_model = tcc.lower("tiny.yaml", "arm-a7")
    op_names = [node.op.keyword for node in fp32_model.graph.nodes]
    assert "batch_norm" in [node.op.keyword for node in tcc.load("tiny.yaml").graph.nodes]
    assert "batch_norm" not in op_names
    int8_model = tcc.lower(
        "tiny.yaml", "onnxruntime", precision="int8", data=images, method="minmax"
    )
    assert "qconv" in [node.op.keyword for node in int8_model.graph.nodes]


@IGNORE_CALIBRATION_WARNINGS
def test_bundle_is_run_verified_and_evaluated(home, images):
    bundle = tcc.build(
        "tiny.yaml",
        "onnxruntime",
        precision="int8",
        data=images,
        method="minmax",
        floors={"min_cosine": 0},
    )
    files = sorted(images.rglob("*.png"))
    predictions = tcc.run(bundle, files[:2])
    array = np.asarray(Image.open(files[0]).convert("RGB"))
    (array_prediction,) = tcc.run(bundle.folder, [array])
    assert np.array_equal(predictions[0]["logits"].raw, array_prediction["logits"].raw)
    assert sum(predictions[0]["logits"].values) == pytest.approx(1)
    assert predictions[0]["logits"].ranked()[0][1] in ("cat", "dog", "owl")
    verified = tcc.verify(bundle, "tiny.yaml")
    assert verified.holds
    assert sum(layer.differing for layer in verified.program.layers) == 0
    evaluation = tcc.evaluate(bundle, images)
    assert evaluation.scores.images == len(files)
    assert tcc.evaluate("tiny.yaml", images).scores.images == len(files)
    with pytest.raises(tcc.UserError, match=r"E0601.*`seed` has no effect: it is for specs"):
        tcc.evaluate(bundle.folder, images, seed=1)


def test_changed_bundle_is_refused(home):
    bundle = tcc.build("tiny.yaml", "onnxruntime")
    file = bundle.model / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    for use in (tcc.verify, lambda it: tcc.run(it, []), lambda it: tcc.evaluate(it, home)):
        with pytest.raises(tcc.UserError, match="E0622"):
            use(bundle)


def draw_many(home):
    """Write training images of three classes."""
    rng = np.random.default_rng(3)
    for number in range(40):
        path = home / "many" / ("cat", "dog", "owl", "cat")[number % 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def test_train_matches_the_command(home):
    """The same bytes, and Python gives the same warnings."""
    pytest.importorskip("torch", reason="needs the extra `train`")
    draw_many(home)
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        training_run = tcc.train("tiny.yaml", "many", "python", epochs=1, seed=4, threads=1)
    line = "train tiny.yaml --data many -o typed --epochs 1 --seed 4 --threads 1 --device cpu"
    outcome = CliRunner().invoke(app, line.split())
    assert outcome.exit_code == 0, outcome.stderr
    files = sorted(path.name for path in (home / "typed").iterdir())
    assert files == sorted(path.name for path in (home / "python").iterdir())
    for name in files:
        assert (home / "typed" / name).read_bytes() == (home / "python" / name).read_bytes(), name
    assert training_run.test.images == training_run.data.images["test"][0] + sum(
        training_run.data.images["test"][1:]
    )
    assert bool(caught_warnings) == ("warning" in outcome.stderr)
    with pytest.raises(tcc.UserError, match="E1229"):
        tcc.train("tiny.yaml", "many", "python")


def test_training_resumes(home, monkeypatch):
    """The bytes equal those of an uninterrupted run. A finished run is read again."""
    pytest.importorskip("torch", reason="needs the extra `train`")
    from tcc.compiler.train import checkpoint, loop

    draw_many(home)

    def train(out, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tcc.train("tiny.yaml", "many", out, epochs=3, seed=4, **options)

    uninterrupted_run = train("whole", threads=1)
    write = checkpoint.write_checkpoint

    def interrupted(path, trainer, state):
        write(path, trainer, state)
        if state.position.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0)
        patch.setattr(checkpoint, "write_checkpoint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train("cut", threads=1)
    assert (home / "cut/checkpoint.safetensors").exists()
    with pytest.raises(tcc.UserError, match="E1229"):
        train("cut")
    assert train("cut", resume=True) == uninterrupted_run  # with the thread count of its start
    for path in (home / "whole").iterdir():
        assert path.read_bytes() == (home / "cut" / path.name).read_bytes(), path.name
    assert train("cut", resume=True) == uninterrupted_run
    report = home / "cut/report.json"
    report.write_text(report.read_text().replace('"tcc_training": 1', '"tcc_training": 2'))
    for folder in ("cut", "nothing"):
        with pytest.raises(tcc.UserError, match="E1229"):
            train(folder, resume=True)


def test_import_is_light_and_every_name_exists():
    heavy = [
        "numpy",
        "torch",
        "onnx",
        "onnxruntime",
        "PIL",
        "yaml",
        "ruamel",
        "msgspec",
        "typer",
    ]
    text = (
        f"import sys, tcc; assert not set({heavy}) & sys.modules.keys();"
        "assert all(getattr(tcc, name) for name in tcc.__all__);"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", text], check=True)
