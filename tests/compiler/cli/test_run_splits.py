"""The split of a run in other commands: training images are not used for evaluation by default."""

import csv
import json
import shutil

import pytest
from training_nets import RECIPE, SPEC, draw
from typer.testing import CliRunner

from tcc.compiler.cli import app

WEIGHTS = ("--weights", "run/weights.safetensors")


def tcc(*args):
    return CliRunner().invoke(app, [*map(str, args)])


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """A folder with class folders and a training run with a seeded split."""
    home = tmp_path_factory.mktemp("home")
    (home / "net.yaml").write_text(SPEC)
    (home / "own.yaml").write_text(RECIPE)
    for number in range(40):
        label = ("blue", "red")[number % 2]
        draw(home / "set" / label / f"{number}.png", label, number)
    outcome = tcc(
        "train", home / "net.yaml", "--data", home / "set", "--recipe", home / "own.yaml",
        "--epochs", 1, "--split", "2,1,1", "--threads", 1, "-o", home / "run",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.stderr
    assert "E1216" not in outcome.stderr
    return home


@pytest.fixture
def home(trained_run, tmp_path, monkeypatch):
    """A copy of the trained run that a test may change."""
    shutil.copytree(trained_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_split(home):
    with open(home / "run" / "split.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_split_file_lists_the_images_of_the_run(home):
    split_rows = read_split(home)
    assert [line["split"] for line in split_rows] == ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    assert {line["file"].partition("/")[0] for line in split_rows} == {"blue", "red"}
    assert all((home / "set" / line["file"]).exists() for line in split_rows)
    assert {line["group"] for line in split_rows} == {""}


def test_eval_uses_the_test_images_of_the_run(home):
    outcome = tcc("eval", "net.yaml", *WEIGHTS, "--data", "set", "--json")
    report = json.loads((home / "run" / "report.json").read_bytes())
    document = json.loads(outcome.stdout)
    assert "evaluated on the 10 images of `test` of run" in outcome.stderr
    assert document["data"]["digest"] == report["data"]["digests"]["test"]
    assert document["correct"] == report["test"]["correct"]
    outcome = tcc("eval", "net.yaml", *WEIGHTS, "--data", "set", "--side", "train", "--json")
    assert json.loads(outcome.stdout)["data"]["digest"] == report["data"]["digests"]["train"]


def test_moved_weights_warn_and_accept_a_split_option(home):
    shutil.copy(home / "run" / "weights.safetensors", home / "w.safetensors")
    args = ("eval", "net.yaml", "--weights", "w.safetensors", "--data", "set", "--json")
    outcome = tcc(*args)
    assert "warning[E1216]: it is not known which of these images" in outcome.stderr
    assert json.loads(outcome.stdout)["data"]["images"] == 40
    outcome = tcc(*args, "--split", "run")
    assert "E1216" not in outcome.stderr
    assert json.loads(outcome.stdout)["data"]["images"] == 10
    outcome = tcc(*args, "--split", "none")
    assert "E1216" not in outcome.stderr
    assert json.loads(outcome.stdout)["data"]["images"] == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda path, _: path.unlink(),
            "error[E1218]: this image was removed or renamed after the training",
        ),
        (
            lambda path, other_image: shutil.copy(other_image, path),
            "this image was changed after the training",
        ),
    ],
    ids=["gone", "changed"],
)
def test_changed_images_are_reported(home, change, message):
    *_, last_image, other_image = [home / "set" / line["file"] for line in read_split(home)]
    change(last_image, other_image)
    outcome = tcc("eval", "net.yaml", *WEIGHTS, "--data", "set")
    assert outcome.exit_code == 2
    assert message in outcome.stderr
    assert f"set/{last_image.parent.name}/{last_image.name}" in outcome.stderr
    assert "run/split.csv:40: an image of split `test`" in outcome.stderr


def test_new_images_are_skipped_and_named(home):
    draw(home / "set" / "blue" / "new.png", "blue", 99)
    outcome = tcc("eval", "net.yaml", *WEIGHTS, "--data", "set", "--json")
    assert "warning[E1219]: 1 image is not in the run's split and not used" in outcome.stderr
    assert "set/blue/new.png" in outcome.stderr
    assert json.loads(outcome.stdout)["data"]["images"] == 10


def test_copies_of_training_images_are_refused_for_evaluation(home):
    for line in read_split(home):
        if line["split"] == "train":
            path = home / "copies" / line["label"] / line["file"].replace("/", "-")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(home / "set" / line["file"], path)
    outcome = tcc("eval", "net.yaml", *WEIGHTS, "--data", "copies")
    assert outcome.exit_code == 2
    assert "error[E1219]: none of these images is in the run's `test` split" in outcome.stderr
    draw(home / "copies" / "red" / "new.png", "red", 99)
    outcome = tcc("eval", "net.yaml", *WEIGHTS, "--data", "copies", "--json")
    assert "20 images are in the run's train split and not used" in outcome.stderr
    assert "evaluated on 1 image that run did not train on" in outcome.stderr
    assert json.loads(outcome.stdout)["data"]["images"] == 1


def test_evaluation_on_some_test_images_is_reported(home):
    test_files = [line["file"] for line in read_split(home) if line["split"] == "test"]
    for file in test_files[:3] + test_files[-3:]:
        path = home / "few" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(home / "set" / file, path.with_stem(f"copy-{path.stem}"))
    outcome = tcc("eval", "net.yaml", *WEIGHTS, "--data", "few")
    assert "evaluated on 6 of the 10 images of `test` of run" in outcome.stderr


def test_confusion_plot_uses_the_test_images(home):
    outcome = tcc("plot", "confusion", "net.yaml", *WEIGHTS, "--data", "set", "-o", "c.svg")
    assert outcome.exit_code == 0, outcome.stderr
    assert "evaluated on the 10 images of `test` of run" in outcome.stderr


@pytest.mark.slow
def test_plots_use_the_named_split(home):
    """Evaluation images come from `test`, calibration images from `train`. `none` uses all images."""
    shutil.copy(home / "run" / "weights.safetensors", home / "w.safetensors")

    def draw_plot(kind, *args):
        plot_args = ("net.yaml", "--weights", "w.safetensors", "--data", "set", "-o", "p.svg")
        outcome = tcc("plot", kind, *plot_args, "--json", *args)
        assert outcome.exit_code == 0, outcome.stderr
        return json.loads(outcome.stdout), outcome.stderr

    document, stderr_text = draw_plot("confusion")
    assert (
        document["images"],
        "warning[E1216]: it is not known which of these" in stderr_text,
    ) == (
        40,
        True,
    )
    document, stderr_text = draw_plot("confusion", "--split", "none")
    assert (document["images"], "E1216" in stderr_text) == (40, False)
    for run in ("run", "run/split.csv"):
        document, stderr_text = draw_plot("confusion", "--split", run)
        assert (document["images"], "on the 10 images of `test` of run" in stderr_text) == (
            10,
            True,
        )
    for args in (("tsne",), ("tsne", "--layer", "relu")):
        assert (
            "evaluated on the 10 images of `test` of run" in draw_plot(*args, "--split", "run")[1]
        )
    for kind in ("features", "filters", "weights", "errors"):
        stderr_text = draw_plot(kind, "--split", "run")[1]
        assert stderr_text.count("with the 20 images of `train` of run") == 1
        assert "of `test`" not in stderr_text


@pytest.mark.slow
def test_plots_with_a_calibration_use_the_test_images(home):
    assert tcc("calibrate", "net.yaml", *WEIGHTS, "--data", "set", "-o", "c.json").exit_code == 0
    plot_args = ("net.yaml", *WEIGHTS, "--data", "set", "--calibration", "c.json", "-o", "p.svg")
    for kind in ("features", "errors"):
        outcome = tcc("plot", kind, *plot_args)
        assert outcome.exit_code == 0, outcome.stderr
        assert outcome.stderr.count("plot of the 10 images of `test` of run") == 1
    outcome = tcc("plot", "filters", *plot_args)
    assert outcome.exit_code == 2
    assert "`--data` has no effect: with `--calibration` no images are read" in outcome.stderr
    # Split folders, without a run that defines other splits.
    (home / "sides").mkdir()
    shutil.copytree("set", "sides/train")
    shutil.copytree("set", "sides/test")
    outcome = tcc("plot", "filters", "net.yaml", "--data", "sides", "-o", "p.svg")
    assert "calibrated with sides/train" in outcome.stderr


@pytest.mark.parametrize("kind", ["confusion", "tsne", "filters"])
def test_plot_with_an_invalid_split_file_is_refused(home, kind):
    (home / "bad.csv").write_bytes(b"\0\xff")
    for split_name in ("nowhere", "bad.csv", "net.yaml", "/dev/zero"):
        plot_args = ("--data", "set", "--split", split_name, "-o", "p.svg")
        outcome = tcc("plot", kind, "net.yaml", *WEIGHTS, *plot_args)
        assert (outcome.exit_code, (home / "p.svg").exists()) == (2, False)
        assert "error[E1217]" in outcome.stderr
        assert f"--> {split_name}" in outcome.stderr


def test_calibration_uses_the_training_images(home):
    outcome = tcc("calibrate", "net.yaml", *WEIGHTS, "--data", "set", "-o", "c.json", "--json")
    assert "calibrated with the 20 images of `train` of run" in outcome.stderr
    report = json.loads((home / "run" / "report.json").read_bytes())
    assert json.loads(outcome.stdout)["data"]["digest"] == report["data"]["digests"]["train"]


def test_bundle_is_fitted_on_val_and_evaluated_on_test(home):
    text = 'spec = "net.yaml"\nweights = "run/weights.safetensors"\ndata = "set"\n'
    (home / "tcc.toml").write_text(text)
    args = ("build", "--target", "onnxruntime", "--precision", "int8", "--quiet")
    outcome = tcc(
        *args, "--floor", "max_error=9", "--floor", "min_correlation=0", "--floor", "min_cosine=0"
    )
    assert outcome.exit_code == 0, outcome.stderr
    outcome = tcc("eval", "build/tiny-onnxruntime-int8", "--fit", "--json")
    assert outcome.exit_code == 0, outcome.stderr
    assert "fitted to the 10 images of `val` of run" in outcome.stderr
    assert "evaluated on the 10 images of `test` of run" in outcome.stderr
    digests = json.loads((home / "run" / "report.json").read_bytes())["data"]["digests"]
    document = json.loads(outcome.stdout)
    assert document["data"]["digest"] == digests["test"]
    assert document["operating_point"]["fitted"]["digest"] == digests["val"]
    outcome = tcc("eval", "net.yaml", "build/tiny-onnxruntime-int8")
    assert outcome.stderr.count("evaluated on the 10 images of `test` of run") == 1


def test_further_training_keeps_the_split(home):
    args = ("train", "net.yaml", "--data", "set", "--recipe", "own.yaml", "--epochs", "1")
    outcome = tcc(*args, *WEIGHTS, "--seed", "5", "--threads", "1", "-o", "more")
    assert outcome.exit_code == 0, outcome.stderr
    assert "the split of run is reused" in outcome.stderr
    assert (home / "more/split.csv").read_bytes() == (home / "run/split.csv").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        (",test,", ",late,", 32, "split `late` is not one of train, val, test"),
        ("file,label", "label,file", 1, "the first line must be file,label,group,split,sha256"),
        ("red/", "../red/", None, "its file is not inside the image folder"),
        (",val,", ",val,0", None, "its last cell is not a SHA-256"),
        (",val,", ",val,,", None, "it has 6 cells instead of 5"),
    ],
)
def test_damaged_split_file_is_refused_with_a_location(home, old, new, line, reason):
    path = home / "run" / "split.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    outcome = tcc("eval", "net.yaml", *WEIGHTS, "--data", "set")
    assert outcome.exit_code == 2
    assert "error[E1217]" in outcome.stderr
    assert reason in outcome.stderr
    assert "run/split.csv:" + (f"{line}:1" if line else "") in outcome.stderr


def test_python_plot_matches_the_command(home):
    """Both use the test images of the run. For moved weights Python warns, unless the split is
    named.
    """
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    from tcc import plot

    def draw_plot(name, **options):
        plot.confusion("net.yaml", "set", f"{name}.svg", **options)
        return (home / f"{name}.svg").read_bytes()

    assert (
        tcc("plot", "confusion", "net.yaml", *WEIGHTS, "--data", "set", "-o", "c.svg").exit_code
        == 0
    )
    typed = (home / "c.svg").read_bytes()
    assert draw_plot("beside", weights="run/weights.safetensors") == typed
    shutil.copy("run/weights.safetensors", "away.safetensors")
    with pytest.warns(UserWarning, match="E1216"):
        assert draw_plot("unknown", weights="away.safetensors") != typed
    assert draw_plot("named", weights="away.safetensors", split="run") == typed
    assert draw_plot("none", weights="away.safetensors", split="none") != typed


def test_skipped_image_is_in_no_split(home):
    """Other commands skip it too."""
    (home / "set/blue/0.png").write_bytes((home / "set/blue/0.png").read_bytes()[:60])
    (home / "set/index.csv").write_text("file,label\n" + "".join(
        f"{path.relative_to(home / 'set')},{path.parent.name}\n"
        for path in sorted((home / "set").glob("*/*.png"))
    ))  # fmt: skip
    outcome = tcc(
        "train", "net.yaml", "--data", "set", "--recipe", "own.yaml", "--epochs", 1, "--threads", 1,
        "--split", "2,1,1", "--corrupt", "skip", "-o", "run2",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.stderr
    text = (home / "run2/split.csv").read_text()
    assert ("blue/0.png" in text, "blue/2.png" in text) == (False, True)
    for split in ("train", "val", "test"):
        weights = ("--weights", "run2/weights.safetensors", "--side", split)
        outcome = tcc("eval", "net.yaml", *weights, "--data", "set")
        assert outcome.exit_code == 0, outcome.stderr
        assert "1 image is not in the run's split and not used" in outcome.stderr
        assert "E0719" not in outcome.stderr  # the command knows the table
