"""The split of a run in other commands: nobody judges by what was learned without asking for it."""

import csv
import json
import shutil

import pytest
from training_nets import RECIPE, SPEC, draw
from typer.testing import CliRunner

from tcc.compiler.cli import app

WEIGHTS = ("--weights", "run/weights.safetensors")


def tcc(*words):
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Class folders that a training split by its seed, and its folder."""
    home = tmp_path_factory.mktemp("home")
    (home / "net.yaml").write_text(SPEC)
    (home / "own.yaml").write_text(RECIPE)
    for number in range(40):
        label = ("blue", "red")[number % 2]
        draw(home / "set" / label / f"{number}.png", label, number)
    done = tcc(
        "train", home / "net.yaml", "--data", home / "set", "--recipe", home / "own.yaml",
        "--epochs", 1, "--split", "2,1,1", "--threads", 1, "-o", home / "run",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "E1216" not in done.stderr
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    """A copy of them, to be changed."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(home):
    with open(home / "run" / "split.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_file_says_what_the_run_had(home):
    found = lines(home)
    assert [line["split"] for line in found] == ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    assert {line["file"].partition("/")[0] for line in found} == {"blue", "red"}
    assert all((home / "set" / line["file"]).exists() for line in found)
    assert {line["group"] for line in found} == {""}


def test_eval_judges_by_the_test_images_of_the_run(home):
    done = tcc("eval", "net.yaml", *WEIGHTS, "--data", "set", "--json")
    report = json.loads((home / "run" / "report.json").read_bytes())
    found = json.loads(done.stdout)
    assert "judged by the 10 images of `test` of run" in done.stderr
    assert found["data"]["digest"] == report["data"]["digests"]["test"]
    assert found["correct"] == report["test"]["correct"]
    done = tcc("eval", "net.yaml", *WEIGHTS, "--data", "set", "--side", "train", "--json")
    assert json.loads(done.stdout)["data"]["digest"] == report["data"]["digests"]["train"]


def test_weights_that_left_the_folder_are_warned_of_and_take_the_run_by_name(home):
    shutil.copy(home / "run" / "weights.safetensors", home / "w.safetensors")
    words = ("eval", "net.yaml", "--weights", "w.safetensors", "--data", "set", "--json")
    done = tcc(*words)
    assert "warning[E1216]: nothing says which of these images" in done.stderr
    assert json.loads(done.stdout)["data"]["images"] == 40
    done = tcc(*words, "--split", "run")
    assert "E1216" not in done.stderr
    assert json.loads(done.stdout)["data"]["images"] == 10
    done = tcc(*words, "--split", "none")
    assert "E1216" not in done.stderr
    assert json.loads(done.stdout)["data"]["images"] == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path, _: path.unlink(), "error[E1218]: this image is gone since the training"),
        (lambda path, other: shutil.copy(other, path), "this image has other contents since"),
    ],
    ids=["gone", "changed"],
)
def test_a_folder_that_changed_is_told(home, change, message):
    *_, last, other = [home / "set" / line["file"] for line in lines(home)]
    change(last, other)
    done = tcc("eval", "net.yaml", *WEIGHTS, "--data", "set")
    assert done.exit_code == 2
    assert message in done.stderr
    assert f"set/{last.parent.name}/{last.name}" in done.stderr
    assert "run/split.csv:40: an image of `test`" in done.stderr


def test_new_images_are_left_out_and_named(home):
    draw(home / "set" / "blue" / "new.png", "blue", 99)
    done = tcc("eval", "net.yaml", *WEIGHTS, "--data", "set", "--json")
    assert "warning[E1219]: 1 image is not of the run's split, and left out" in done.stderr
    assert "set/blue/new.png" in done.stderr
    assert json.loads(done.stdout)["data"]["images"] == 10


def test_learned_images_do_not_judge_from_another_folder_either(home):
    for line in lines(home):
        if line["split"] == "train":
            path = home / "copies" / line["label"] / line["file"].replace("/", "-")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(home / "set" / line["file"], path)
    done = tcc("eval", "net.yaml", *WEIGHTS, "--data", "copies")
    assert done.exit_code == 2
    assert "error[E1219]: none of these images is of the run's `test`" in done.stderr
    draw(home / "copies" / "red" / "new.png", "red", 99)
    done = tcc("eval", "net.yaml", *WEIGHTS, "--data", "copies", "--json")
    assert "20 images are of the run's train, and left out" in done.stderr
    assert "judged by 1 image that run has not learned from" in done.stderr
    assert json.loads(done.stdout)["data"]["images"] == 1


def test_a_part_of_the_test_images_is_called_a_part(home):
    draws = [line["file"] for line in lines(home) if line["split"] == "test"]
    for file in draws[:3] + draws[-3:]:
        path = home / "few" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(home / "set" / file, path.with_stem(f"copy-{path.stem}"))
    done = tcc("eval", "net.yaml", *WEIGHTS, "--data", "few")
    assert "judged by 6 of the 10 images of `test` of run" in done.stderr


def test_a_confusion_matrix_is_of_the_test_images(home):
    done = tcc("plot", "confusion", "net.yaml", *WEIGHTS, "--data", "set", "-o", "c.svg")
    assert done.exit_code == 0, done.stderr
    assert "judged by the 10 images of `test` of run" in done.stderr


def test_plots_take_the_split_that_is_named(home):
    """Judged images are of `test`, those that calibrate of `train`; `none` takes all."""
    shutil.copy(home / "run" / "weights.safetensors", home / "w.safetensors")

    def drawn(kind, *words):
        given = ("net.yaml", "--weights", "w.safetensors", "--data", "set", "-o", "p.svg")
        done = tcc("plot", kind, *given, "--json", *words)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    found, said = drawn("confusion")
    assert (found["images"], "warning[E1216]: nothing says which of these" in said) == (40, True)
    found, said = drawn("confusion", "--split", "none")
    assert (found["images"], "E1216" in said) == (40, False)
    for run in ("run", "run/split.csv"):
        found, said = drawn("confusion", "--split", run)
        assert (found["images"], "by the 10 images of `test` of run" in said) == (10, True)
    for words in (("tsne",), ("tsne", "--layer", "relu")):
        assert "judged by the 10 images of `test` of run" in drawn(*words, "--split", "run")[1]
    for kind in ("features", "filters", "weights", "errors"):
        said = drawn(kind, "--split", "run")[1]
        assert said.count("with the 20 images of `train` of run") == 1
        assert "of `test`" not in said


def test_with_a_calibration_pictures_are_of_the_test_images(home):
    assert tcc("calibrate", "net.yaml", *WEIGHTS, "--data", "set", "-o", "c.json").exit_code == 0
    given = ("net.yaml", *WEIGHTS, "--data", "set", "--calibration", "c.json", "-o", "p.svg")
    for kind in ("features", "errors"):
        done = tcc("plot", kind, *given)
        assert done.exit_code == 0, done.stderr
        assert done.stderr.count("drawn of the 10 images of `test` of run") == 1
    done = tcc("plot", "filters", *given)
    assert done.exit_code == 2
    assert "`--data` has no effect: with `--calibration` no images are read" in done.stderr
    # Folders of sides, and no run that says more.
    (home / "sides").mkdir()
    shutil.copytree("set", "sides/train")
    shutil.copytree("set", "sides/test")
    done = tcc("plot", "filters", "net.yaml", "--data", "sides", "-o", "p.svg")
    assert "calibrated with sides/train" in done.stderr


@pytest.mark.parametrize("kind", ["confusion", "tsne", "filters"])
def test_a_plot_without_its_split_is_not_drawn(home, kind):
    (home / "bad.csv").write_bytes(b"\0\xff")
    for word in ("nowhere", "bad.csv", "net.yaml", "/dev/zero"):
        given = ("--data", "set", "--split", word, "-o", "p.svg")
        done = tcc("plot", kind, "net.yaml", *WEIGHTS, *given)
        assert (done.exit_code, (home / "p.svg").exists()) == (2, False)
        assert "error[E1217]" in done.stderr
        assert f"--> {word}" in done.stderr


def test_calibration_takes_what_the_network_has_learned_from(home):
    done = tcc("calibrate", "net.yaml", *WEIGHTS, "--data", "set", "-o", "c.json", "--json")
    assert "calibrated with the 20 images of `train` of run" in done.stderr
    report = json.loads((home / "run" / "report.json").read_bytes())
    assert json.loads(done.stdout)["data"]["digest"] == report["data"]["digests"]["train"]


def test_a_bundle_of_the_projects_weights_is_fitted_to_val_and_judged_by_test(home):
    text = 'spec = "net.yaml"\nweights = "run/weights.safetensors"\ndata = "set"\n'
    (home / "tcc.toml").write_text(text)
    words = ("build", "--target", "onnxruntime", "--precision", "int8", "--quiet")
    done = tcc(
        *words, "--floor", "max_error=9", "--floor", "min_correlation=0", "--floor", "min_cosine=0"
    )
    assert done.exit_code == 0, done.stderr
    done = tcc("eval", "build/tiny-onnxruntime-int8", "--fit", "--json")
    assert done.exit_code == 0, done.stderr
    assert "fitted to the 10 images of `val` of run" in done.stderr
    assert "judged by the 10 images of `test` of run" in done.stderr
    digests = json.loads((home / "run" / "report.json").read_bytes())["data"]["digests"]
    found = json.loads(done.stdout)
    assert found["data"]["digest"] == digests["test"]
    assert found["operating_point"]["fitted"]["digest"] == digests["val"]
    done = tcc("eval", "net.yaml", "build/tiny-onnxruntime-int8")
    assert done.stderr.count("judged by the 10 images of `test` of run") == 1


def test_training_further_keeps_the_split(home):
    words = ("train", "net.yaml", "--data", "set", "--recipe", "own.yaml", "--epochs", "1")
    done = tcc(*words, *WEIGHTS, "--seed", "5", "--threads", "1", "-o", "more")
    assert done.exit_code == 0, done.stderr
    assert "the split is that of run" in done.stderr
    assert (home / "more/split.csv").read_bytes() == (home / "run/split.csv").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        (",test,", ",late,", 32, "`late` is none of train, val, test"),
        ("file,label", "label,file", 1, "its first line is to be file,label,group,split,sha256"),
        ("red/", "../red/", None, "its file is not below the folder of the images"),
        (",val,", ",val,0", None, "its last cell is no SHA-256"),
        (",val,", ",val,,", None, "it has 6 cells of 5"),
    ],
)
def test_a_damaged_file_is_refused_where_it_is(home, old, new, line, why):
    path = home / "run" / "split.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    done = tcc("eval", "net.yaml", *WEIGHTS, "--data", "set")
    assert done.exit_code == 2
    assert "error[E1217]" in done.stderr
    assert why in done.stderr
    assert "run/split.csv:" + (f"{line}:1" if line else "") in done.stderr


def test_python_draws_as_the_command_does(home):
    """By the run's test images; of weights that left their run it warns, unless it is named."""
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    from tcc import plot

    def drawn(name, **how):
        plot.confusion("net.yaml", "set", f"{name}.svg", **how)
        return (home / f"{name}.svg").read_bytes()

    assert (
        tcc("plot", "confusion", "net.yaml", *WEIGHTS, "--data", "set", "-o", "c.svg").exit_code
        == 0
    )
    typed = (home / "c.svg").read_bytes()
    assert drawn("beside", weights="run/weights.safetensors") == typed
    shutil.copy("run/weights.safetensors", "away.safetensors")
    with pytest.warns(UserWarning, match="E1216"):
        assert drawn("unknown", weights="away.safetensors") != typed
    assert drawn("named", weights="away.safetensors", split="run") == typed
    assert drawn("none", weights="away.safetensors", split="none") != typed


def test_an_image_that_was_skipped_is_on_no_side(home):
    """Other commands do without it, as the training did."""
    (home / "set/blue/0.png").write_bytes((home / "set/blue/0.png").read_bytes()[:60])
    (home / "set/index.csv").write_text("file,label\n" + "".join(
        f"{path.relative_to(home / 'set')},{path.parent.name}\n"
        for path in sorted((home / "set").glob("*/*.png"))
    ))  # fmt: skip
    done = tcc(
        "train", "net.yaml", "--data", "set", "--recipe", "own.yaml", "--epochs", 1, "--threads", 1,
        "--split", "2,1,1", "--corrupt", "skip", "-o", "run2",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    text = (home / "run2/split.csv").read_text()
    assert ("blue/0.png" in text, "blue/2.png" in text) == (False, True)
    for side in ("train", "val", "test"):
        weights = ("--weights", "run2/weights.safetensors", "--side", side)
        done = tcc("eval", "net.yaml", *weights, "--data", "set")
        assert done.exit_code == 0, done.stderr
        assert "1 image is not of the run's split, and left out" in done.stderr
        assert "E0719" not in done.stderr  # the table is known
