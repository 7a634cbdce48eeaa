"""`tcc train`: its files, its repeatability and its errors."""

import json
import random
import re
import shutil
import signal
import time
from dataclasses import asdict

import pytest
import torch
import training_processes
from safetensors.numpy import load_file
from training_nets import HEADS, RECIPE, SPEC, draw

from tcc.compiler.driver import pipeline
from tcc.compiler.frontend.spec import load
from tcc.compiler.reference import confidence_intervals
from tcc.compiler.train import run_folder

FILES = ["metrics.jsonl", "recipe.json", "report.json", "split.csv", "weights.safetensors"]


def read_contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def reference(train, home):
    """The files of a training without interruptions."""
    completed = train("-o", "whole")
    assert completed.exit_code == 0, completed.output
    return read_contents(home / "whole")


def test_without_a_terminal_each_epoch_is_one_line(train, home):
    completed = train("-o", "run", "--epochs", 3)
    lines = [line for line in completed.stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 3
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(
            rf"epoch {number}/3: loss \d+\.\d{{4}}, validation accuracy \d+\.\d\d%", line
        )
    assert "epoch" not in train("-o", "quiet", "--epochs", 2, "-q").stderr


def test_training_learns_and_writes_its_report(train, home, reference, pictures):
    assert list(reference) == FILES
    report = json.loads(reference["report.json"])
    lines = [json.loads(line) for line in reference["metrics.jsonl"].splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["val"] == report["val"]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert report["test"]["accuracy"] >= 0.9
    exact = confidence_intervals.compute_share_interval(report["test"]["correct"], 10)
    # exact: resampling would give a single point
    assert report["test"]["interval"] == asdict(exact)
    assert report["data"]["images"] == {"train": [21, 21], "val": [6, 6], "test": [5, 5]}
    assert report["finished"]
    assert (report["epochs"], report["kept"], report["threads"]) == (4, 4, 1)
    text = b"".join(reference[name] for name in FILES[:4]).decode()
    assert str(home) not in text
    assert str(pictures) not in text


def test_eval_of_the_weights_matches_the_report(reference, home, pictures):
    from typer.testing import CliRunner

    from tcc.compiler.cli import app

    arguments = ("eval", "tiny.yaml", "--weights", "whole/weights.safetensors", "--json")
    completed = CliRunner().invoke(app, [*arguments, "--data", str(pictures / "test")])
    report = json.loads(reference["report.json"])
    assert json.loads(completed.stdout)["accuracy"] == report["test"]["accuracy"]


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ((), True),
        (("--seed", "1"), False),
        (("--epochs", "3"), False),
        (("--set", "drop=0"), False),
    ],
    ids=str,
)
def test_same_command_gives_the_same_bytes(train, home, reference, change, is_same):
    torch.manual_seed(77)  # earlier random numbers have no effect
    assert train("-o", "again", *change).exit_code == 0
    run_files = read_contents(home / "again")
    assert (run_files == reference) is is_same
    if not is_same:
        assert run_files["weights.safetensors"] != reference["weights.safetensors"]


def test_recipe_of_a_run_reproduces_the_run(train, home, reference):
    assert train("-o", "again", recipe="whole/recipe.json").exit_code == 0
    assert read_contents(home / "again") == reference


@pytest.mark.parametrize("seed", range(3))
def test_run_interrupted_at_any_step_gives_the_same_bytes(
    train, home, reference, monkeypatch, seed
):
    """The time limit ends after some steps, repeatedly. Each run resumes from the checkpoint."""
    from tcc.compiler.train import loop

    draw = random.Random(seed)
    arguments, ended = (), False
    while not ended:
        interruptions = iter([False] * draw.randint(2, 7))
        monkeypatch.setattr(
            loop.TrainingRun,
            "_is_time_over",
            lambda self, interruptions=interruptions: next(interruptions, True),
        )
        completed = train("-o", "parts", *arguments)
        assert completed.exit_code == 0, completed.output
        arguments = ("--resume",)
        ended = json.loads((home / "parts/report.json").read_text())["finished"]
        assert ended or "continue with --resume" in completed.stderr
    assert read_contents(home / "parts") == reference


def test_resuming_keeps_the_random_numbers(train, home, monkeypatch):
    """Augmentation, mixup, dropout and the average continue as without the interruption."""
    from tcc.compiler.train import loop

    text = (
        RECIPE + "mixup: {alpha: 0.4, cutmix: 0.4}\nsampling: balanced\noptimizer: {kind: adamw}\n"
    )
    text += "augment: {horizontal_flip: 0.5, warp: {degrees: 30}, noise: {amount: 9}, erase: {}}\n"
    (home / "drawn.yaml").write_text(text)
    assert train("-o", "whole", recipe="drawn.yaml").exit_code == 0
    interruptions = iter([False] * 7)  # in the middle of an epoch
    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingRun, "_is_time_over", lambda self: next(interruptions, True))
        assert "continue with --resume" in train("-o", "parts", recipe="drawn.yaml").stderr
    assert train("-o", "parts", "--resume", recipe="drawn.yaml").exit_code == 0
    assert read_contents(home / "parts") == read_contents(home / "whole")


def test_keyboard_interrupt_reports_how_to_resume(train, home, monkeypatch):
    from tcc.compiler.train import loop

    interruptions = iter([False] * 12)

    def interrupt_late(self):
        for value in interruptions:
            return value
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.TrainingRun, "_is_time_over", interrupt_late)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)  # a checkpoint after each step
    completed = train("-o", "run")
    assert completed.exit_code == 130
    assert "run has a checkpoint: continue with --resume" in completed.stderr


def test_train_only_heads_train_by_their_loss_share(train, home):
    (home / "heads.yaml").write_text(HEADS)
    weights_by_share = {}
    for share in (0, 0.5, 2):
        (home / "own.yaml").write_text(
            f"{RECIPE}optimizer: {{weight_decay: 0}}\nloss: {{auxiliary: {{extra: {share}}}}}\n"
        )
        completed = train("-o", f"run{share}", "--epochs", 1, spec="heads.yaml")
        assert completed.exit_code == 0, completed.stderr
        weights_by_share[share] = load_file(home / f"run{share}" / "weights.safetensors")
    graph = load(home / "heads.yaml").graph
    initial_weights = pipeline.create_random_weights(graph).tensors
    unchanged = {
        name
        for name in initial_weights
        if (weights_by_share[0][name] == initial_weights[name]).all()
    }
    assert unchanged == {
        "linear_1.weight",
        "linear_1.bias",
    }  # with a share of 0 the head does not train
    assert all((weights_by_share[0.5][name] != initial_weights[name]).any() for name in unchanged)
    stems = [weights_by_share[share]["conv.weight"] for share in weights_by_share]
    assert (stems[0] != stems[1]).any()
    assert (stems[1] != stems[2]).any()


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_bytes(train, home, reference, pictures):
    """`kill -9` at random moments. The checkpoint is written after each step."""
    arguments = ["train", "tiny.yaml", "--data", str(pictures), "--recipe", "own.yaml"]
    arguments += ["--threads", "1", "-o", "killed"]
    draw, kills, mark = random.Random(5), 0, home / "killed/checkpoint.safetensors"
    while not (home / "killed/report.json").exists() or mark.exists():
        is_begun = mark.exists()
        command_line = [*arguments, *(["--resume"] if is_begun else [])]
        child = training_processes.start_training(command_line, state_each_step=True)
        previous_mtime = mark.stat().st_mtime_ns if is_begun else None
        while child.is_alive() and not (
            mark.exists() and mark.stat().st_mtime_ns != previous_mtime
        ):
            time.sleep(0.001)
        time.sleep(draw.random() * 0.02 if kills < 3 else 2)
        child.kill()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        kills += child.exitcode != 0
    assert kills >= 2
    assert read_contents(home / "killed") == reference


def test_finished_run_is_not_repeated(train, home, reference):
    completed = train("-o", "whole", "--resume", "--json")
    assert (completed.exit_code, json.loads(completed.stdout)["finished"]) == (0, True)
    assert read_contents(home / "whole") == reference


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (("--seed", 1), "initial weights, seed"),
        (("--epochs", 3), "recipe"),
        (("--set", "drop=0"), "network"),
    ],
)
def test_finished_run_refuses_other_options(train, home, reference, options, changed):
    assert_refused(
        train("-o", "whole", "--resume", *options), "E1229", f"different inputs: {changed}$"
    )
    assert read_contents(home / "whole") == reference


@pytest.mark.parametrize(
    ("split", "changed"),
    [("train", "training images"), ("val", "validation images"), ("test", "test images")],
)
def test_finished_run_refuses_other_images(train, home, pictures, reference, split, changed):
    shutil.copytree(pictures, home / "other")
    draw(home / "other" / split / "red" / "0.png", "red", 999)
    completed = train("-o", "whole", "--resume", data=home / "other")
    assert_refused(completed, "E1229", f"different inputs: {changed}$")


def assert_refused(completed, code, pattern):
    assert completed.exit_code == 2, completed.output
    assert f"error[{code}]" in completed.stderr
    assert re.search(pattern, completed.stderr, re.MULTILINE), completed.stderr


def test_networks_without_trainable_outputs_are_refused(train, home):
    (home / "many.yaml").write_text(
        SPEC.replace("units: 2", "units: 3").replace(", labels: [blue, red]", "")
    )
    assert_refused(train(spec="many.yaml"), "E1226", "3 values, but the images have 2 classes")
    (home / "map.yaml").write_text(
        re.sub(r"  - global(.|\n)*?output", "output", SPEC).replace(", labels: [blue, red]", "")
    )
    assert_refused(train(spec="map.yaml"), "E1226", "no output that is a row of classes")


@pytest.mark.parametrize(
    ("loss", "pattern"),
    [
        ("{class_weights: {green: 2}}", "`class_weights` has unknown names: green"),
        ("{kind: focal, positive: [rot]}", "`positive` has unknown names: rot"),
        ("{auxiliary: {side: 0.3}}", "`auxiliary` has unknown names: side"),
    ],
)
def test_loss_with_unknown_names_is_refused(train, home, loss, pattern):
    (home / "own.yaml").write_text(RECIPE + f"loss: {loss}\n")
    assert_refused(train(), "E1225", pattern)


def test_unsuitable_output_folders_are_refused(train, home, reference):
    assert_refused(train("-o", "whole"), "E1229", "already contains a training")
    assert_refused(train("-o", "none", "--resume"), "E1229", "no training to resume")
    assert_refused(train("-o", home), "E1229", "neither an empty folder nor a training")


def test_resuming_with_other_inputs_is_refused(train, home, monkeypatch):
    from tcc.compiler.train import loop

    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingRun, "_is_time_over", lambda _: True)
        assert train("-o", "run").exit_code == 0
    assert_refused(
        train("-o", "run", "--resume", "--seed", 1),
        "E1229",
        "different inputs: initial weights, seed",
    )
    assert_refused(
        train("-o", "run", "--resume", "--epochs", 9), "E1229", "different inputs: recipe"
    )
    path = home / "run/checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert_refused(train("-o", "run", "--resume"), "E1230", "do not match their digest")
    path.write_bytes(data[:-10])
    assert_refused(train("-o", "run", "--resume"), "E0501", "not a valid safetensors file")


@pytest.mark.parametrize(("features", "precision"), [(["avx512_bf16"], "bf16"), (["avx2"], "fp32")])
def test_auto_precision_is_chosen_once_per_run(train, home, monkeypatch, features, precision):
    from tcc.compiler.train import arithmetic, loop

    def set_features(*features):
        monkeypatch.setattr(arithmetic.cpu, "read_features", lambda: frozenset(features))

    set_features(*features)
    assert train("-o", "whole").exit_code == 0
    assert json.loads((home / "whole/recipe.json").read_text())["precision"] == precision
    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingRun, "_is_time_over", lambda _: True)
        assert train("-o", "run").exit_code == 0
    set_features("bf16" if precision == "fp32" else "avx2")  # it resumes on another processor
    assert train("-o", "run", "--resume").exit_code == 0
    weights = [home / name / "weights.safetensors" for name in ("run", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_infinite_loss_stops_the_training(train, home):
    rate = "learning_rate: {peak: 1.0e+30, schedule: constant}"
    (home / "own.yaml").write_text(re.sub("learning_rate.*", rate, RECIPE))
    completed = train("-o", "run")
    assert_refused(completed, "E1228", r"the loss of step \d of epoch 1 is not finite")
    assert not (home / "run/weights.safetensors").exists()


@pytest.mark.parametrize("text", ["", "1", "1x", "h", "1h-2m", "m5"])
def test_invalid_max_time_is_refused(train, text):
    assert_refused(train("--max-time", text), "E0601", "this is not a time")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_gpu_is_reported(train, home):
    assert_refused(train("-o", "run", "--device", "cuda"), "E1234", r"no GPU(.|\n)*--device cuda")
    assert_refused(train("-o", "run", "--device", "tpu"), "E0601", "must be auto, cpu or cuda")
    assert not (home / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_trains_like_the_cpu(train, home):
    for device in ("cpu", "cuda"):
        assert train("-o", device, "--device", device, "--set", "drop=0").exit_code == 0
    cpu, gpu = (
        [json.loads(line) for line in (home / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("cpu", "cuda")
    )
    assert gpu[0]["loss"] == pytest.approx(cpu[0]["loss"], abs=0.05)  # bfloat16
    assert json.loads((home / "cuda/report.json").read_text())["test"]["accuracy"] >= 0.9


def test_keep_best_writes_the_best_epoch(train, home):
    (home / "own.yaml").write_text(RECIPE + "keep: best\n")
    assert train("-o", "best").exit_code == 0
    report = json.loads((home / "best/report.json").read_text())
    lines = [json.loads(line) for line in (home / "best/metrics.jsonl").read_text().splitlines()]
    values = [(line["val"]["accuracy"], -line["val"]["loss"]) for line in lines]
    assert report["kept"] == 1 + values.index(max(values))
    assert report["val"] == lines[report["kept"] - 1]["val"]


def test_training_starts_from_given_weights(train, home, reference):
    (home / "own.yaml").write_text(RECIPE.replace("peak: 0.3", "peak: 1.0e-30"))
    assert train("-o", "on", "--weights", "whole/weights.safetensors", "--epochs", 1).exit_code == 0
    old, new = (load_file(home / f / "weights.safetensors") for f in ("whole", "on"))
    assert all(
        (old[n] == new[n]).all() for n in old if "running" not in n and "batch_norm" not in n
    )


def test_tensorboard_events_are_written(train, home):
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    assert train("-o", "run", "--tensorboard", "--epochs", 2).exit_code == 0
    (file,) = (home / "run/tensorboard").iterdir()
    assert all(name in file.read_bytes() for name in (b"loss/train", b"accuracy/val"))


def test_missing_tensorboard_is_reported(train, monkeypatch):
    monkeypatch.setattr(run_folder, "find_spec", lambda _: None)
    completed = train("-o", "run", "--tensorboard")
    assert completed.exit_code == 3
    assert "pip install 'tcc-compiler[tensorboard]'" in completed.stderr
