"""Several processes compute what one does."""

import json
import socket

import pytest
import torch
import training_processes
from training_nets import HEADS

from tcc.compiler.train.distributed import World


def test_each_process_has_its_share_of_a_batch():
    parts = [World(rank, 3).slice_batch(torch.arange(12)).tolist() for rank in range(3)]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def together(words, home):
    """Run a command in two processes, as torchrun does; return how each ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [
        training_processes.begun(words, settings=world | {"RANK": rank}, said=home / f"said{rank}")
        for rank in ("0", "1")
    ]
    for each in both:
        each.join(300)
    return [each.exitcode for each in both]


def by_itself(words):
    """Run a command in one process."""
    child = training_processes.begun(words)
    child.join()
    assert child.exitcode == 0


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(home, pictures):
    """Batch norm and gradients are those of the whole batch; without dropout, which each draws."""
    text = (home / "own.yaml").read_text().replace("average: 0.9", "precision: fp32")
    (home / "own.yaml").write_text(text + "loss: {balanced: true}\n")
    words = ["train", "tiny.yaml", "--data", pictures, "--recipe", "own.yaml"]
    words += ["--threads", "1", "--set", "drop=0", "-o"]
    by_itself([*words, "one"])
    assert together([*words, "two"], home) == [0, 0]
    one, two = (
        [json.loads(line) for line in (home / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for alone, shared in zip(one, two, strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-6)
        assert shared["accuracy"] == alone["accuracy"]
        assert shared["val"]["loss"] == pytest.approx(alone["val"]["loss"], abs=1e-5)
    assert json.loads((home / "two/report.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_two_processes_train_integers_as_one_does_and_speak_once(home, pictures):
    """Heads for training alone have no gradient there."""
    (home / "heads.yaml").write_text(HEADS)
    recipe = "tcc_recipe: 1\nbatch: 8\nepochs: 2\nprecision: fp32\nlearning_rate: {peak: 0.001}\n"
    (home / "qat.yaml").write_text(recipe)
    given = ["heads.yaml", "--data", pictures]
    words = ["train", *given, "--recipe", "qat.yaml", "--threads", "1", "-o"]
    by_itself([*words, "float"])
    weights = ["--weights", "float/weights.safetensors"]
    by_itself(["calibrate", *given, *weights, "--method", "minmax", "-o", "scales.json"])
    words = [*words[:-1], *weights, "--qat", "scales.json", "-o"]
    by_itself([*words, "one"])
    assert together([*words, "two"], home) == [0, 0]
    one, two = (
        [json.loads(line) for line in (home / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [each["loss"] for each in two] == pytest.approx([e["loss"] for e in one], abs=1e-6)
    assert (home / "two/calibration.json").exists()
    assert "E1208" in (home / "said0").read_text()
    assert "E1208" not in (home / "said1").read_text()


def test_a_batch_that_cannot_be_cut(train, monkeypatch):
    from contextlib import nullcontext

    from tcc.compiler.train import distributed

    monkeypatch.setattr(distributed, "join_processes", lambda _: nullcontext(World(0, 3)))
    monkeypatch.setattr(World, "wait", lambda _: None)
    done = train("-o", "run")
    assert done.exit_code == 2
    assert "error[E1231]: a batch of 8 cannot be cut into 3 equal parts" in done.stderr
