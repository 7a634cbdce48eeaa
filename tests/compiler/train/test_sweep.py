"""Sweeps: the trainings of a sweep file, how they run, and their report."""

import json
from itertools import pairwise

import pytest

from tcc.compiler.report import sweep_report
from tcc.compiler.support import task_runners
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.train import recipe, sweep
from tcc.compiler.train.sweep import TrialOutcome

BASE = recipe.parse_recipe("tcc_recipe: 1\nlearning_rate: {final: 0.1}\n", "own.yaml")


@pytest.fixture
def trials(tmp_path):
    def read_trials(text):
        (tmp_path / "sweep.yaml").write_text(text)
        return sweep.read_sweep(tmp_path / "sweep.yaml", BASE)

    return read_trials


def test_sweep_lists_every_combination(trials):
    combinations = trials(
        "tcc_sweep: 1\nset: {growth: [8, 16], layers: [[2, 2]]}\n"
        "recipe: {learning_rate.peak: [0.1, 0.2], learning_rate.schedule: [exponential]}\n"
        "seeds: [3, 4]\n"
    )
    assert [trial.name for trial in combinations] == list("12345678")
    assert combinations[0].settings == ("growth=8", "layers=[2, 2]")
    assert [trial.seed for trial in combinations] == [3, 4] * 4
    assert [trial.recipe.learning_rate.peak for trial in combinations] == [0.1, 0.1, 0.2, 0.2] * 2
    assert {trial.recipe.learning_rate.schedule for trial in combinations} == {"exponential"}
    assert len({recipe.digest(trial.recipe) for trial in combinations}) == 2
    assert combinations[-1].varied_settings == {
        "growth": "16", "layers": "[2, 2]", "learning_rate.peak": "0.2",
        "learning_rate.schedule": "exponential", "seed": "4",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "fragment"),
    [
        ("[1]", 1, 1, "a mapping of keys"),
        ("seeds: [1]", 1, 1, "must contain `tcc_sweep: 1`"),
        ("tcc_sweep: 1\nsede: [1]", 2, 1, "`sede` is not a known key"),
        ("tcc_sweep: 1\nseeds: 3", 2, 8, "must be a list"),
        ("tcc_sweep: 1\nseeds: [1, -1]", 2, 12, "an integer of at least 0"),
        ("tcc_sweep: 1\nset: {growth: 8}", 2, 15, "must be a list"),
        ("tcc_sweep: 1\nrecipe: {loss.kind: [focl]}", 2, 22, "loss.kind: focl, `kind` must be"),
        ("tcc_sweep: 1\nrecipe: {epochs.x: [1]}", 2, 21, "`epochs` is not a section"),
        ("tcc_sweep: 1\nrecipe: {epochs: [2, 0]}", 2, 22, "epochs: 0, `epochs` must be at least"),
        (f"tcc_sweep: 1\nseeds: {list(range(1001))}", 1, 1, "1,001 trainings, the limit is 1,000"),
    ],
)  # fmt: skip
def test_invalid_sweep_is_refused(trials, text, line, column, fragment):
    with pytest.raises(UserError) as error:
        trials(text)
    (diagnostic,) = error.value.diagnostics
    assert (diagnostic.code, diagnostic.at.line, diagnostic.at.column) == ("E1232", line, column)
    assert fragment in diagnostic.message


def test_report_has_means_over_seeds(trials):
    sweep_trials = trials("tcc_sweep: 1\nset: {growth: [8, 16]}\nseeds: [0, 1]\n")
    scores = [0.5, 0.7, 0.9, None]
    trial_ends = [
        TrialOutcome(value and {"val": {"accuracy": value}, "test": None}, "") for value in scores
    ]
    best, second_row = sweep_report.build_rows(sweep_trials, trial_ends)
    assert (best.name, best.val_accuracy, best.val_deviation, best.failed) == (
        "growth 16",
        0.9,
        None,
        1,
    )
    assert (second_row.val_accuracy, second_row.seeds, second_row.test_accuracy) == (
        pytest.approx(0.6),
        2,
        None,
    )
    assert second_row.val_deviation == pytest.approx(0.02**0.5)


SWEEP = "tcc_sweep: 1\nset: {width: [4, 6]}\nseeds: [0]\n"


def run_sweep(train, home, *arguments):
    (home / "sweep.yaml").write_text(SWEEP)
    completed = train("--epochs", 1, "--sweep", "sweep.yaml", "-o", "runs", "--json", *arguments)
    assert completed.exit_code == 0, completed.output
    document = json.loads(completed.stdout)
    assert {row["chosen"]["width"] for row in document["rows"]} == {"4", "6"}
    assert document["trials"][0]["report"]["network"]["params"]["width"] == "4"
    assert json.loads((home / "runs/sweep.json").read_text())["rows"] == document["rows"]
    return document


@pytest.mark.slow
def test_dask_cluster_gives_the_results_of_one_machine(train, home):
    """The test of docs/training.md runs a sweep on one machine alone."""
    pytest.importorskip("distributed", reason="needs the extra `sweep`")
    dask_report = run_sweep(train, home, "--dask", "local", "--workers", 2)
    assert run_sweep(train, home) == dask_report  # no training runs again
    for trial in dask_report["trials"]:
        arguments = ("--set", f"width={trial['chosen']['width']}", "--epochs", 1, "--seed", 0)
        assert train("-o", "here", *arguments).exit_code == 0
        assert json.loads((home / "here/report.json").read_text()) == trial["report"]
        (home / "here").rename(home / trial["chosen"]["width"])


def test_settings_are_checked_before_any_training(train, home):
    (home / "sweep.yaml").write_text("tcc_sweep: 1\nset: {widht: [4]}\n")
    completed = train("--sweep", "sweep.yaml", "-o", "runs")
    assert completed.exit_code == 2
    assert "widht" in completed.stderr
    assert not (home / "runs").exists()
    completed = train("--sweep", "sweep.yaml", "--dask", "local", "--slurm", "gpu")
    assert "`--slurm` has no effect: `--dask` runs the trainings" in completed.stderr


def test_unreachable_cluster_is_reported(train, home, monkeypatch):
    pytest.importorskip("distributed", reason="needs the extra `sweep`")
    monkeypatch.setattr(task_runners, "CONNECT_SECONDS", 1)
    (home / "sweep.yaml").write_text(SWEEP)
    for address in ("tcp://127.0.0.1:9", "nowhere", "what://x"):
        completed = train("--sweep", "sweep.yaml", "-o", "runs", "--dask", address)
        assert completed.exit_code == 2, completed.output
        assert (
            f"error[E1317]: no Dask cluster answers at this address\n  --> {address}"
            in completed.stderr
        )


def test_sweep_passes_its_options_to_each_training(train, home, monkeypatch):

    argument_lists = []
    report = {"val": {"accuracy": 0.5}, "test": None}

    def run(command):
        argument_lists.append(command.arguments)
        return TrialOutcome(report, "")

    monkeypatch.setattr(sweep, "run_trial", run)
    (home / "sweep.yaml").write_text(SWEEP)
    extra_arguments = ("--max-time", "1h", "--qat", "c.json", "--weights", "w.safetensors")
    completed = train(
        "--sweep",
        "sweep.yaml",
        "-o",
        "runs",
        "--tensorboard",
        "--corrupt",
        "skip",
        *extra_arguments,
    )
    assert completed.exit_code == 0, completed.output
    assert len(argument_lists) == 2
    for arguments in argument_lists:
        pairs = dict(pairwise(arguments))
        assert pairs["--max-time"] == "1h"
        assert pairs["--qat"] == str(home / "c.json")
        assert pairs["--weights"] == str(home / "w.safetensors")
        assert pairs["--corrupt"] == "skip"
        assert "--tensorboard" in arguments
        assert "--resume" not in arguments  # a started training resumes by itself
