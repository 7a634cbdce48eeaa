"""Trainings in separate processes, forked from one that has imported PyTorch."""

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

# The import takes longer than the training. Without the fork, each process would repeat it.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["torch", "torch._dynamo", "tcc.compiler.cli", "tcc.compiler.train"])


def start_training(
    arguments: Sequence[object],
    settings: Mapping[str, str] | None = None,
    stderr_file: Path | None = None,
    *,
    state_each_step: bool = False,
) -> BaseProcess:
    """Start a `tcc` command in this folder and return its process.

    Args:
        arguments: The arguments of the command.
        settings: Environment variables.
        stderr_file: A file for standard error.
        state_each_step: Whether the state is written after each training step.
    """
    process_arguments = (
        list(map(str, arguments)),
        os.getcwd(),
        dict(settings or {}),
        stderr_file,
        state_each_step,
    )
    child = _FORKS.Process(target=_run, args=process_arguments)
    child.start()
    return child


def _run(
    arguments: list[str],
    folder: str,
    settings: Mapping[str, str],
    stderr_file: Path | None,
    state_each_step: bool,
) -> None:
    import sys

    from tcc.compiler.cli import main
    from tcc.compiler.train import loop

    os.chdir(folder)
    os.environ.update(settings)
    if stderr_file:
        with open(stderr_file, "w") as file:
            os.dup2(file.fileno(), 2)
    if state_each_step:
        loop.CHECKPOINT_SECONDS = 0
    sys.argv = ["tcc", *arguments]
    main()
