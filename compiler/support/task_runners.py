"""Run many tasks: on this machine, on a Dask cluster, or as Slurm jobs.

A task is a module's function and its input. All machines need this program and access to the same
folders.
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
"""Time limit of a task on Slurm, in minutes."""
CLUSTER = "slurm"
"""The cluster type for submitit; `local` runs jobs here, so that tests need no Slurm."""
CONNECT_SECONDS = 30
"""Seconds to wait for a Dask cluster."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TaskLocation:
    """Where tasks run: on `dask`, in the Slurm partition `slurm`, or on this machine.

    `dask` is a cluster's address, or `local` for local processes. `workers` is the number of tasks
    at a time on this machine. Slurm writes its logs into `folder`/slurm and gives each task
    `cores`.
    """

    folder: Path
    dask: str | None = None
    slurm: str | None = None
    workers: int = 1
    cores: int = 1

    @property
    def is_remote(self) -> bool:
        """Whether other machines may run the tasks."""
        return self.slurm is not None or self.dask not in (None, "local")


@dataclass(frozen=True, slots=True)
class LostTask:
    """The result of a task that could not be completed, with the reason."""

    reason: str


class TaskRunner(Protocol):
    """Runs tasks, and yields the index and result of each as it completes."""

    def __call__(
        self, task: Callable[[T], R], inputs: Sequence[T], /
    ) -> Generator[tuple[int, R | LostTask], None, None]:
        """Run a function on each input; if the generator is closed, no further task starts."""
        ...


@contextmanager
def open_runner(location: TaskLocation, purpose: str) -> Iterator[TaskRunner]:
    """Yield a runner for a location.

    Args:
        location: Where tasks run.
        purpose: What they are for; completes "is needed to ...".

    Raises:
    Raises:
        MissingTool: dask.distributed or submitit is not installed.
        UserError: No Dask cluster answers, or Slurm rejects the jobs (E1317).
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
    """Runs `workers` tasks at a time on this machine; each should start its own process."""

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
        # Not pure: otherwise Dask would merge equal inputs and reuse results of an earlier run.
        futures = {
            client.submit(task, task_input, pure=False): index
            for index, task_input in enumerate(inputs)
        }
        try:
            for future in dask.as_completed(futures):
                # If a worker is killed, its task runs on another; after several it is lost.
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
        help = "use the address that the scheduler prints: tcp://HOST:8786"
        label = str(error)[:200]
        raise fail(
            "E1317", message, make_file_span(address[:200]), label=label, help=help
        ) from None


def _make_slurm_runner(location: TaskLocation, partition: str, purpose: str) -> TaskRunner:
    _require_module("submitit", purpose)
    submitit: Any = import_module("submitit")
    # submitit logs warnings to standard output, which may be a JSON document.
    logging.getLogger("submitit").handlers.clear()
    if CLUSTER == "slurm" and shutil.which("srun") is None:
        help = "run the command where `srun` is installed, such as on a cluster's login node"
        raise _make_cluster_error(partition, "Slurm is not installed here", "", help)

    def run_all(
        task: Callable[[T], R], inputs: Sequence[T], /
    ) -> Generator[tuple[int, R | LostTask], None, None]:
        executor = submitit.AutoExecutor(folder=str(location.folder / "slurm"), cluster=CLUSTER)
        executor.update_parameters(
            slurm_partition=partition, timeout_min=SLURM_MINUTES, cpus_per_task=location.cores
        )
        try:
            # One job array, which Slurm queues in one request.
            with executor.batch():
                jobs = [executor.submit(task, task_input) for task_input in inputs]
        except RuntimeError as refusal:  # submitit raises several kinds
            message, help = "Slurm rejected these jobs", "check the partition: `sinfo` lists them"
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
"""Environment of a process that runs beside others, one per core: one thread each."""
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
_RUNNING: set["subprocess.Popen[bytes]"] = set()
"""The running processes; a thread waits for each."""


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """Exit code (negative: the signal) and output of a command."""

    code: int
    out: str
    err: str


def run_command(
    arguments: Sequence[str], variables: Mapping[str, str] = _NO_VARIABLES
) -> CommandOutcome:
    """Run a tcc command until it ends; it also ends when this process ends in any way.

    Args:
        arguments: The arguments after `tcc`.
        variables: Environment variables to add to this process's.
    """
    # Nobody writes to this pipe: it closes when this process ends, even by kill -9. No other
    # child has its end, because Python does not pass descriptors on by default.
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
    """Kill all running commands, so that nobody waits for them."""
    for process in list(_RUNNING):
        process.kill()


def attend() -> None:
    """Have this process end as soon as its parent has ended."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
