"""Sweeps: which trainings a file stands for, how they run, and what becomes of them."""

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
    def read(text):
        (tmp_path / "sweep.yaml").write_text(text)
        return sweep.read_sweep(tmp_path / "sweep.yaml", BASE)

    return read


def test_every_combination(trials):
    found = trials(
        "tcc_sweep: 1\nset: {growth: [8, 16], layers: [[2, 2]]}\n"
        "recipe: {learning_rate.peak: [0.1, 0.2], learning_rate.schedule: [exponential]}\n"
        "seeds: [3, 4]\n"
    )
    assert [each.name for each in found] == list("12345678")
    assert found[0].settings == ("growth=8", "layers=[2, 2]")
    assert [each.seed for each in found] == [3, 4] * 4
    assert [each.recipe.learning_rate.peak for each in found] == [0.1, 0.1, 0.2, 0.2] * 2
    assert {each.recipe.learning_rate.schedule for each in found} == {"exponential"}
    assert len({recipe.digest(each.recipe) for each in found}) == 2
    assert found[-1].chosen == {
        "growth": "16", "layers": "[2, 2]", "learning_rate.peak": "0.2",
        "learning_rate.schedule": "exponential", "seed": "4",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("[1]", 1, 1, "a mapping of keys"),
        ("seeds: [1]", 1, 1, "begins with `tcc_sweep: 1`"),
        ("tcc_sweep: 1\nsede: [1]", 2, 1, "no such `sede`"),
        ("tcc_sweep: 1\nseeds: 3", 2, 8, "takes a list"),
        ("tcc_sweep: 1\nseeds: [1, -1]", 2, 12, "a whole number from 0"),
        ("tcc_sweep: 1\nset: {growth: 8}", 2, 15, "takes a list"),
        ("tcc_sweep: 1\nrecipe: {loss.kind: [focl]}", 2, 22, "loss.kind: focl, `kind` must be"),
        ("tcc_sweep: 1\nrecipe: {epochs.x: [1]}", 2, 21, "`epochs` is no section"),
        ("tcc_sweep: 1\nrecipe: {epochs: [2, 0]}", 2, 22, "epochs: 0, `epochs` must be at least"),
        (f"tcc_sweep: 1\nseeds: {list(range(1001))}", 1, 1, "1,001 trainings, at most 1,000"),
    ],
)  # fmt: skip
def test_what_is_no_sweep(trials, text, line, column, words):
    with pytest.raises(UserError) as error:
        trials(text)
    (found,) = error.value.diagnostics
    assert (found.code, found.at.line, found.at.column) == ("E1232", line, column)
    assert words in found.message


def test_means_over_seeds(trials):
    given = trials("tcc_sweep: 1\nset: {growth: [8, 16]}\nseeds: [0, 1]\n")
    scores = [0.5, 0.7, 0.9, None]
    ends = [
        TrialOutcome(value and {"val": {"accuracy": value}, "test": None}, "") for value in scores
    ]
    best, other = sweep_report.build_rows(given, ends)
    assert (best.name, best.val_accuracy, best.val_deviation, best.failed) == (
        "growth 16",
        0.9,
        None,
        1,
    )
    assert (other.val_accuracy, other.seeds, other.test_accuracy) == (pytest.approx(0.6), 2, None)
    assert other.val_deviation == pytest.approx(0.02**0.5)


SWEEP = "tcc_sweep: 1\nset: {width: [4, 6]}\nseeds: [0]\n"


def check(train, home, *words):
    (home / "sweep.yaml").write_text(SWEEP)
    done = train("--epochs", 1, "--sweep", "sweep.yaml", "-o", "runs", "--json", *words)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert {row["chosen"]["width"] for row in document["rows"]} == {"4", "6"}
    assert document["trials"][0]["report"]["network"]["params"]["width"] == "4"
    assert json.loads((home / "runs/sweep.json").read_text())["rows"] == document["rows"]
    return document


@pytest.mark.slow
def test_a_dask_cluster_of_two_workers_gives_what_one_machine_gives(train, home):
    """Of sweeps on this machine alone, docs/training.md has one, which is run too."""
    pytest.importorskip("distributed", reason="needs the extra `sweep`")
    there = check(train, home, "--dask", "local", "--workers", 2)
    assert check(train, home) == there  # nothing is run again
    for each in there["trials"]:
        words = ("--set", f"width={each['chosen']['width']}", "--epochs", 1, "--seed", 0)
        assert train("-o", "here", *words).exit_code == 0
        assert json.loads((home / "here/report.json").read_text()) == each["report"]
        (home / "here").rename(home / each["chosen"]["width"])


def test_settings_are_checked_before_any_training(train, home):
    (home / "sweep.yaml").write_text("tcc_sweep: 1\nset: {widht: [4]}\n")
    done = train("--sweep", "sweep.yaml", "-o", "runs")
    assert done.exit_code == 2
    assert "widht" in done.stderr
    assert not (home / "runs").exists()
    done = train("--sweep", "sweep.yaml", "--dask", "local", "--slurm", "gpu")
    assert "`--slurm` has no effect: `--dask` says where trainings run" in done.stderr


def test_a_cluster_that_does_not_answer(train, home, monkeypatch):
    pytest.importorskip("distributed", reason="needs the extra `sweep`")
    monkeypatch.setattr(task_runners, "CONNECT_SECONDS", 1)
    (home / "sweep.yaml").write_text(SWEEP)
    for address in ("tcp://127.0.0.1:9", "nowhere", "what://x"):
        done = train("--sweep", "sweep.yaml", "-o", "runs", "--dask", address)
        assert done.exit_code == 2, done.output
        assert (
            f"error[E1317]: no Dask cluster answers at this address\n  --> {address}" in done.stderr
        )


def test_what_a_sweep_hands_to_each_training(train, home, monkeypatch):

    found = []
    report = {"val": {"accuracy": 0.5}, "test": None}

    def run(command):
        found.append(command.words)
        return TrialOutcome(report, "")

    monkeypatch.setattr(sweep, "run_trial", run)
    (home / "sweep.yaml").write_text(SWEEP)
    words = ("--max-time", "1h", "--qat", "c.json", "--weights", "w.safetensors")
    done = train(
        "--sweep", "sweep.yaml", "-o", "runs", "--tensorboard", "--corrupt", "skip", *words
    )
    assert done.exit_code == 0, done.output
    assert len(found) == 2
    for each in found:
        pairs = dict(pairwise(each))
        assert pairs["--max-time"] == "1h"
        assert pairs["--qat"] == str(home / "c.json")
        assert pairs["--weights"] == str(home / "w.safetensors")
        assert pairs["--corrupt"] == "skip"
        assert "--tensorboard" in each
        assert "--resume" not in each  # what was begun goes on by itself
