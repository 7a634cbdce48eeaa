"""Builds that are killed at any moment, while another command works in the same folder.

The other one succeeds; what was there stays until something new is whole; the bundle that is there
afterwards holds its goldens; and the next build gives the bytes that it always gives, also out of a
cache that killed ones wrote to, and leaves nothing of the killed one behind, neither beside the
bundle nor among the temporary files. One in three has an empty cache; the others share one.
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
from bundles import SPEC, templates
from case import Case, Front, Outcome

TARGETS = {"onnxruntime": 60, "tflite": 20, "web": 16, "host": 4}
"""What is built, and how often of a hundred times."""
LONGEST = 1.0
"""Seconds within which a build is killed; half of them much earlier."""


@dataclass
class _Scratch:
    """The folders for temporary files and for the cache of forked processes, if others."""

    place: str | None = None
    cache: str | None = None

    def enter(self) -> None:
        """Take it, in a process that was just forked."""
        if self.place and os.path.isdir(self.place):
            os.environ["TMPDIR"] = tempfile.tempdir = self.place
        if self.cache:
            os.environ["TCC_CACHE"] = self.cache
            os.environ.pop("TCC_CACHE_LIMIT", None)  # by which others build anew


SCRATCH = _Scratch()
os.register_at_fork(after_in_child=SCRATCH.enter)


@dataclass
class _Killed:
    """A process that builds, the one that ends it, and whether they have a cache of their own."""

    fresh: bool = False
    numbers: tuple[int, ...] = ()

    def end(self) -> None:
        """Wait for both."""
        for number in self.numbers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(number, 0)
        self.numbers = ()


def _words(target: str, *more: str) -> tuple[str, ...]:
    return ("build", "tiny.yaml", "--target", target, "--out", "out", "-q", *more)


def _case(numbers: Random) -> Case:
    able = [name for name in TARGETS if (templates() / f"tiny-{name}-fp32").is_dir()]
    target = numbers.choices(able, [TARGETS[name] for name in able])[0]
    was_there = numbers.random() < 0.7
    delay = numbers.random() * LONGEST * numbers.choice((1, 0.3))
    delay *= 8 if target == "host" else 1
    number = numbers.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
    killed = _Killed(fresh=numbers.random() < 0.33)
    name = f"tiny-{target}-fp32"
    words = _words(target, "--seed", "1")
    if was_there and numbers.random() < 0.3:
        words = ("verify", f"out/{name}")
    return Case(
        words,
        {"tiny.yaml": SPEC.encode()},
        partial(_started, killed, name if was_there else "", _words(target), (delay, number)),
        partial(_checked, killed, target),
    )


def _started(
    killed: _Killed, there: str, words: tuple[str, ...], end: tuple[float, int], folder: Path
) -> None:
    """Start a build that will be killed."""
    (folder / "tmp").mkdir()
    (folder / "out").mkdir()
    if there:
        shutil.copytree(templates() / there, folder / "out" / there)
    SCRATCH.place = str(folder / "tmp")
    SCRATCH.cache = str(folder / "cache") if killed.fresh else _shared()
    victim = os.fork()
    if not victim:
        out = folder.with_suffix(".victim")
        child.act(Case(words), folder, out, out)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(victim, victim)
    killer = os.fork()
    if not killer:
        time.sleep(end[0])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim, end[1])
        os._exit(0)
    killed.numbers = (killer, victim)


def _checked(killed: _Killed, target: str, outcome: Outcome, folder: Path) -> str:
    """Say what was lost, or left behind."""
    killed.end()
    if outcome.code:
        return f"exit {outcome.code} beside a killed one: {outcome.err.strip()[-200:]}"
    name = f"tiny-{target}-fp32"
    verified = child.run(Case(("verify", f"out/{name}")), folder)
    if verified.code:
        return f"verify: exit {verified.code}: {verified.err.strip()[-200:]}"
    again = child.run(Case(_words(target)), folder)
    if again.code:
        return f"the next build: exit {again.code}: {again.err.strip()[-200:]}"
    if _files(folder / "out" / name) != _files(templates() / name):
        return "the next build has other bytes"
    return _left(killed, name, folder)


def _left(killed: _Killed, name: str, folder: Path) -> str:
    """Say what the killed one left behind."""
    if killed.fresh:
        cleared = child.run(Case(("cache", "clear")), folder)
        kept = _files(folder / "cache")
        if cleared.code or kept:
            return f"tcc dev cache clear: exit {cleared.code}, left {sorted(kept)}"
    if (left := sorted(os.listdir(folder / "out"))) != [name]:
        return f"left beside the bundle: {left}"
    left = [entry for entry in os.listdir(folder / "tmp") if entry.startswith("tcc")]
    return f"left among the temporary files: {left}" if left else ""


@cache
def _shared() -> str:
    folder = tempfile.mkdtemp(prefix="cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _warm() -> None:

    templates()


KILLS = Front("kills", 300, _case, _warm)
