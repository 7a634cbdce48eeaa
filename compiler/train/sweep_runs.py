"""Where the trainings of a sweep run: one after another here, on a Dask cluster, or on Slurm.

Each is a process of its own, `tcc train ...`, in a folder of its own that all machines see.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.train import run_folder

PROGRAM = "from tcc.compiler.cli import main; main()"
SLURM_MINUTES = 24 * 60
"""The longest that a training takes on Slurm."""


@dataclass(frozen=True, slots=True)
class TrialCommand:
    """The words of a training, after `tcc`, and its folder."""

    words: tuple[str, ...]
    folder: str


@dataclass(frozen=True, slots=True)
class TrialEnd:
    """How a training ended: its report as plain data, or None and what it said."""

    report: Any
    said: str


def run(command: TrialCommand) -> TrialEnd:
    """Train, or go on with what was begun; what is finished is not run again."""
    folder = Path(command.folder)
    # A sweep that was stopped is begun again as a whole: what is done or half done is known by its
    # folder.
    begun = any((folder / name).exists() for name in (run_folder.CHECKPOINT, run_folder.REPORT))
    words = [sys.executable, "-c", PROGRAM, *command.words, *(["--resume"] if begun else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return TrialEnd(None, done.stderr.strip()[-2000:])
    return TrialEnd(json.loads((folder / run_folder.REPORT).read_bytes()), "")


TrialRunner = Callable[[Sequence[TrialCommand]], Iterator[tuple[int, TrialEnd]]]
"""Runs trainings, and yields the place and the end of each as it comes."""


def here(commands: Sequence[TrialCommand]) -> Iterator[tuple[int, TrialEnd]]:
    """Run one after another in this machine."""
    for place, command in enumerate(commands):
        yield place, run(command)


@contextmanager
def on_dask(address: str, workers: int) -> Iterator[TrialRunner]:
    """Give what runs on a Dask cluster: that of an address, or for `local` processes of our own.

    Raises:
        MissingTool: dask.distributed is not installed.
    """
    _require("distributed", "run a sweep on Dask")
    dask: Any = import_module("distributed")

    def run_all(commands: Sequence[TrialCommand]) -> Iterator[tuple[int, TrialEnd]]:
        # Not pure: Dask would take equal words for one task, and keep results of an earlier sweep.
        futures = {client.submit(run, each, pure=False): n for n, each in enumerate(commands)}
        for future in dask.as_completed(futures):
            yield futures[future], future.result()

    if address == "local":
        options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1}
        with (
            dask.LocalCluster(**options, dashboard_address=None) as cluster,
            dask.Client(cluster) as client,
        ):
            yield run_all
    else:
        with dask.Client(address, timeout=30) as client:
            yield run_all


@contextmanager
def on_slurm(folder: Path, partition: str) -> Iterator[TrialRunner]:
    """Give what runs as jobs of a Slurm partition, whose logs go to `folder`/slurm.

    Raises:
        MissingTool: submitit is not installed.
    """
    _require("submitit", "run a sweep on Slurm")
    submitit: Any = import_module("submitit")

    def run_all(commands: Sequence[TrialCommand]) -> Iterator[tuple[int, TrialEnd]]:
        executor = submitit.AutoExecutor(folder=str(folder / "slurm"))
        executor.update_parameters(slurm_partition=partition, timeout_min=SLURM_MINUTES)
        # One array of jobs, which a Slurm queue takes at once.
        with executor.batch():
            jobs = [executor.submit(run, each) for each in commands]
        for place, job in enumerate(jobs):
            yield place, job.result()

    yield run_all


def _require(module: str, why: str) -> None:
    if find_spec(module) is None:
        raise MissingTool(Tool(module, why, None))
