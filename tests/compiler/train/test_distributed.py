"""Several processes compute the same as one process."""

import json
import socket

import pytest
import torch
import training_processes
from training_nets import HEADS

from tcc.compiler.train.distributed import World


def test_each_process_gets_its_part_of_a_batch():
    parts = [World(rank, 3).slice_batch(torch.arange(12)).tolist() for rank in range(3)]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def run_together(arguments, home):
    """Run a command in two processes, as torchrun does, and return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        training_processes.start_training(
            arguments, settings=world | {"RANK": rank}, stderr_file=home / f"said{rank}"
        )
        for rank in ("0", "1")
    ]
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def run_alone(arguments):
    """Run a command in one process."""
    child = training_processes.start_training(arguments)
    child.join()
    assert child.exitcode == 0


@pytest.mark.slow
def test_two_processes_give_the_same_losses_as_one(home, pictures):
    """Batch norm and gradients cover the full batch. Dropout is off: each process draws its own."""
    text = (home / "own.yaml").read_text().replace("average: 0.9", "precision: fp32")
    (home / "own.yaml").write_text(text + "loss: {balanced: true}\n")
    arguments = ["train", "tiny.yaml", "--data", pictures, "--recipe", "own.yaml"]
    arguments += ["--threads", "1", "--set", "drop=0", "-o"]
    run_alone([*arguments, "one"])
    assert run_together([*arguments, "two"], home) == [0, 0]
    single_epochs, shared_epochs = (
        [json.loads(line) for line in (home / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for single_epoch, shared_epoch in zip(single_epochs, shared_epochs, strict=True):
        assert shared_epoch["loss"] == pytest.approx(single_epoch["loss"], abs=1e-6)
        assert shared_epoch["accuracy"] == single_epoch["accuracy"]
        assert shared_epoch["val"]["loss"] == pytest.approx(single_epoch["val"]["loss"], abs=1e-5)
    assert json.loads((home / "two/report.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_two_processes_match_one_in_qat_and_report_once(home, pictures):
    """Train-only heads have no gradient in QAT."""
    (home / "heads.yaml").write_text(HEADS)
    recipe = "tcc_recipe: 1\nbatch: 8\nepochs: 2\nprecision: fp32\nlearning_rate: {peak: 0.001}\n"
    (home / "qat.yaml").write_text(recipe)
    common_arguments = ["heads.yaml", "--data", pictures]
    arguments = ["train", *common_arguments, "--recipe", "qat.yaml", "--threads", "1", "-o"]
    run_alone([*arguments, "float"])
    weights = ["--weights", "float/weights.safetensors"]
    run_alone(["calibrate", *common_arguments, *weights, "--method", "minmax", "-o", "scales.json"])
    arguments = [*arguments[:-1], *weights, "--qat", "scales.json", "-o"]
    run_alone([*arguments, "one"])
    assert run_together([*arguments, "two"], home) == [0, 0]
    single_epochs, shared_epochs = (
        [json.loads(line) for line in (home / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [epoch["loss"] for epoch in shared_epochs] == pytest.approx(
        [e["loss"] for e in single_epochs], abs=1e-6
    )
    assert (home / "two/calibration.json").exists()
    assert "E1208" in (home / "said0").read_text()
    assert "E1208" not in (home / "said1").read_text()


def test_batch_that_does_not_divide_by_processes_is_refused(train, monkeypatch):
    from contextlib import nullcontext

    from tcc.compiler.train import distributed

    monkeypatch.setattr(distributed, "join_processes", lambda _: nullcontext(World(0, 3)))
    monkeypatch.setattr(World, "wait", lambda _: None)
    completed = train("-o", "run")
    assert completed.exit_code == 2
    message = "error[E1231]: a batch of 8 cannot be split equally among 3 processes"
    assert message in completed.stderr
