"""Where many tasks run: on this machine, on a Dask cluster, or as jobs of Slurm.

A task is a function of a module and what it is given. All machines have this program and see the
same folders.
"""

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool

SLURM_MINUTES = 24 * 60
"""The longest that a task takes on Slurm."""
CLUSTER = "slurm"
"""What of submitit takes jobs; its `local` runs them here, so that tests need no Slurm."""
CONNECT_SECONDS = 30
"""Seconds to wait for a Dask cluster."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TaskLocation:
    """Where tasks run: on `dask`, in the Slurm partition `slurm`, or here, so many at once.

    `dask` is a cluster's address, or `local` for processes of our own; `workers` is of what runs
    here. Slurm writes its logs into `folder`/slurm, and gives each so many `cores`.
    """

    folder: Path
    dask: str | None = None
    slurm: str | None = None
    workers: int = 1
    cores: int = 1

    @property
    def is_remote(self) -> bool:
        """Whether other machines may run them."""
        return self.slurm is not None or self.dask not in (None, "local")


@dataclass(frozen=True, slots=True)
class LostTask:
    """What stands for the end of a task that nothing brought to one: why."""

    reason: str


class TaskRunner(Protocol):
    """Runs tasks, and yields the place and the end of each as it comes."""

    def __call__(
        self, task: Callable[[T], R], inputs: Sequence[T], /
    ) -> Generator[tuple[int, R | LostTask], None, None]:
        """Run a function of each of what is given; closed early, it begins no others."""
        ...


@contextmanager
def open_runner(location: TaskLocation, purpose: str) -> Iterator[TaskRunner]:
    """Give what runs tasks at a place.

    Args:
        location: Where.
        purpose: What for, after "is needed to".

    Raises:
        MissingTool: dask.distributed or submitit is not installed.
        UserError: No Dask cluster answers, or Slurm takes no jobs (E1317).
    """
    if location.dask is not None:
        with _open_dask_runner(location.dask, location.workers, purpose) as run:
            yield run
    elif location.slurm is not None:
        yield _make_slurm_runner(location, location.slurm, purpose)
    else:
        yield _LocalRunner(location.workers)


@dataclass(frozen=True)
class _LocalRunner:
    """So many at once on this machine; each is to be a process of its own."""

    workers: int

    def __call__(
        self, task: Callable[[T], R], inputs: Sequence[T], /
    ) -> Generator[tuple[int, R | LostTask], None, None]:
        if self.workers == 1:
            for index, task_input in enumerate(inputs):
                yield index, task(task_input)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            futures = {
                pool.submit(task, task_input): index for index, task_input in enumerate(inputs)
            }
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                stop_commands()
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _open_dask_runner(address: str, workers: int, purpose: str) -> Iterator[TaskRunner]:
    _require_module("distributed", purpose)
    dask: Any = import_module("distributed")

    def run_all(
        task: Callable[[T], R], inputs: Sequence[T], /
    ) -> Generator[tuple[int, R | LostTask], None, None]:
        # Not pure: Dask would take equal words for one task, and keep results of an earlier run.
        futures = {
            client.submit(task, task_input, pure=False): index
            for index, task_input in enumerate(inputs)
        }
        try:
            for future in dask.as_completed(futures):
                # A task whose worker is killed runs on another; one that many die of is lost.
                error = future.exception()
                yield futures[future], LostTask(str(error)[:600]) if error else future.result()
        finally:
            client.cancel(list(futures))

    if address == "local":
        options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1}
        with (
            dask.LocalCluster(**options, dashboard_address=None) as cluster,
            dask.Client(cluster) as client,
        ):
            yield run_all
    else:
        with _connect_client(dask, address) as client:
            yield run_all


def _connect_client(dask: Any, address: str) -> Any:
    try:
        return dask.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        message = "no Dask cluster answers at this address"
        help = "name it as its scheduler does: tcp://HOST:8786"
        label = str(error)[:200]
        raise fail(
            "E1317", message, make_file_span(address[:200]), label=label, help=help
        ) from None


def _make_slurm_runner(location: TaskLocation, partition: str, purpose: str) -> TaskRunner:
    _require_module("submitit", purpose)
    submitit: Any = import_module("submitit")
    # It writes warnings on standard output too, where a document may go; now they go to the other.
    logging.getLogger("submitit").handlers.clear()
    if CLUSTER == "slurm" and shutil.which("srun") is None:
        help = "run the command where `srun` is, such as on a cluster's login machine"
        raise _make_cluster_error(partition, "there is no Slurm here", "", help)

    def run_all(
        task: Callable[[T], R], inputs: Sequence[T], /
    ) -> Generator[tuple[int, R | LostTask], None, None]:
        executor = submitit.AutoExecutor(folder=str(location.folder / "slurm"), cluster=CLUSTER)
        executor.update_parameters(
            slurm_partition=partition, timeout_min=SLURM_MINUTES, cpus_per_task=location.cores
        )
        try:
            # One array of jobs, which a Slurm queue takes at once.
            with executor.batch():
                jobs = [executor.submit(task, task_input) for task_input in inputs]
        except RuntimeError as refusal:  # of several kinds
            message, help = "Slurm does not take these jobs", "`sinfo` names its partitions"
            label = next(iter(str(refusal).splitlines()), "")[:300]
            raise _make_cluster_error(partition, message, label, help) from None
        try:
            for index, job in enumerate(jobs):
                error = job.exception()
                yield index, LostTask(str(error)[:600]) if error else job.result()
        finally:
            for job in jobs:
                if not job.done():
                    job.cancel()

    return run_all


def _make_cluster_error(partition: str, message: str, label: str, help: str) -> UserError:
    return fail("E1317", message, make_file_span(partition[:200]), label=label, help=help)


def _require_module(module: str, purpose: str) -> None:
    if find_spec(module) is None:
        raise MissingTool(Tool(module, purpose, None))


PROGRAM = (
    "from tcc.compiler.support import task_runners; task_runners.attend(); "
    "from tcc.compiler.entry import main; main()"
)
ONE_THREAD = MappingProxyType(
    dict.fromkeys(("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
)
"""What the environment of a process says that is one of as many as there are cores."""
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
_RUNNING: set["subprocess.Popen[bytes]"] = set()
"""Those that run; a thread waits for each."""


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """How a command ended (negative: by that signal), and what it said."""

    code: int
    out: str
    err: str


def run_command(
    arguments: Sequence[str], variables: Mapping[str, str] = _NO_VARIABLES
) -> CommandOutcome:
    """Run a command to its end; when this process ends in any way, so does that one.

    Args:
        arguments: Those after `tcc`.
        variables: What its environment has more than this process's.
    """
    # A pipe that nobody writes into: it ends when this process does, even by kill -9. No other
    # child holds its end, since Python hands on no descriptors unasked.
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, *arguments],
        stdin=reader,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | variables,
    )
    _RUNNING.add(process)
    try:
        os.close(reader)
        out, err = (output.decode(errors="replace") for output in process.communicate())
    finally:
        process.kill()
        process.wait()
        _RUNNING.discard(process)
        os.close(writer)
    return CommandOutcome(process.returncode, out, err)


def stop_commands() -> None:
    """End all that run, so that nobody waits for them."""
    for process in list(_RUNNING):
        process.kill()


def attend() -> None:
    """End this process as soon as the one that ran it has ended."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
