"""Fuzz builds that are killed at any moment, while another command uses the same folder.

The other command must succeed, and the old bundle must stay until the new one is complete. The
remaining bundle must pass `tcc verify`. The next build must give the usual bytes, also from a cache
that killed builds wrote to. It must leave no files of a killed build, neither in the output folder
nor among the temporary files. A third of the cases have an empty cache; the others share one.
"""

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random

import child
from bundles import SPEC, build_templates
from case import Case, Front, Outcome

TARGETS = {"onnxruntime": 60, "tflite": 20, "web": 16, "host": 4}
"""The targets of the builds, with their frequencies in percent."""
LONGEST = 1.0
"""The maximum time in seconds before a build is killed; in half of the cases it is much shorter."""


@dataclass
class _Scratch:
    """The folders for temporary files and for the cache in forked processes, if they are set."""

    temporary_folder: str | None = None
    cache: str | None = None

    def enter(self) -> None:
        """Use the folders in a process that was just forked."""
        if self.temporary_folder and os.path.isdir(self.temporary_folder):
            os.environ["TMPDIR"] = tempfile.tempdir = self.temporary_folder
        if self.cache:
            os.environ["TCC_CACHE"] = self.cache
            os.environ.pop("TCC_CACHE_LIMIT", None)  # it would disable the cache


SCRATCH = _Scratch()
os.register_at_fork(after_in_child=SCRATCH.enter)


@dataclass
class _KilledBuild:
    """The processes of a build and of its killer, and whether they have their own cache."""

    fresh: bool = False
    process_ids: tuple[int, ...] = ()

    def wait(self) -> None:
        """Wait for both processes."""
        for process_id in self.process_ids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process_id, 0)
        self.process_ids = ()


def _make_arguments(target: str, *extra_arguments: str) -> tuple[str, ...]:
    return ("build", "tiny.yaml", "--target", target, "--out", "out", "-q", *extra_arguments)


def _make_case(numbers: Random) -> Case:
    able = [name for name in TARGETS if (build_templates() / f"tiny-{name}-fp32").is_dir()]
    target = numbers.choices(able, [TARGETS[name] for name in able])[0]
    was_there = numbers.random() < 0.7
    delay = numbers.random() * LONGEST * numbers.choice((1, 0.3))
    delay *= 8 if target == "host" else 1
    signal_number = numbers.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
    killed = _KilledBuild(fresh=numbers.random() < 0.33)
    name = f"tiny-{target}-fp32"
    arguments = _make_arguments(target, "--seed", "1")
    if was_there and numbers.random() < 0.3:
        arguments = ("verify", f"out/{name}")
    return Case(
        arguments,
        {"tiny.yaml": SPEC.encode()},
        partial(
            _start_build,
            killed,
            name if was_there else "",
            _make_arguments(target),
            (delay, signal_number),
        ),
        partial(_check_build, killed, target),
    )


def _start_build(
    killed: _KilledBuild,
    template_name: str,
    arguments: tuple[str, ...],
    kill_time: tuple[float, int],
    folder: Path,
) -> None:
    """Start a build and a process that kills it."""
    (folder / "tmp").mkdir()
    (folder / "out").mkdir()
    if template_name:
        shutil.copytree(build_templates() / template_name, folder / "out" / template_name)
    SCRATCH.temporary_folder = str(folder / "tmp")
    SCRATCH.cache = str(folder / "cache") if killed.fresh else _make_shared_cache()
    victim = os.fork()
    if not victim:
        out = folder.with_suffix(".victim")
        child.run_command(Case(arguments), folder, out, out)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(victim, victim)
    killer = os.fork()
    if not killer:
        time.sleep(kill_time[0])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim, kill_time[1])
        os._exit(0)
    killed.process_ids = (killer, victim)


def _check_build(killed: _KilledBuild, target: str, outcome: Outcome, folder: Path) -> str:
    """Return what was lost or left behind."""
    killed.wait()
    if outcome.code:
        return f"exit {outcome.code} during a killed build: {outcome.err.strip()[-200:]}"
    name = f"tiny-{target}-fp32"
    verified = child.run(Case(("verify", f"out/{name}")), folder)
    if verified.code:
        return f"verify: exit {verified.code}: {verified.err.strip()[-200:]}"
    rebuild_outcome = child.run(Case(_make_arguments(target)), folder)
    if rebuild_outcome.code:
        return f"the next build: exit {rebuild_outcome.code}: {rebuild_outcome.err.strip()[-200:]}"
    if _read_files(folder / "out" / name) != _read_files(build_templates() / name):
        return "the next build gives other bytes"
    return _check_leftovers(killed, name, folder)


def _check_leftovers(killed: _KilledBuild, name: str, folder: Path) -> str:
    """Return what the killed build left behind."""
    if killed.fresh:
        cleared = child.run(Case(("cache", "clear")), folder)
        cache_files = _read_files(folder / "cache")
        if cleared.code or cache_files:
            return f"tcc dev cache clear: exit {cleared.code}, left {sorted(cache_files)}"
    if (leftovers := sorted(os.listdir(folder / "out"))) != [name]:
        return f"left in the output folder: {leftovers}"
    leftovers = [
        file_name for file_name in os.listdir(folder / "tmp") if file_name.startswith("tcc")
    ]
    return f"left among the temporary files: {leftovers}" if leftovers else ""


@cache
def _make_shared_cache() -> str:
    folder = tempfile.mkdtemp(prefix="cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _prepare() -> None:

    build_templates()


KILLS = Front("kills", 300, _make_case, _prepare)
