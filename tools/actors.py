"""Simulate concurrent processes with threads that advance one system call at a time.

A lock belongs to an open file, not to a process, so threads compete for it as processes do. Each
thread pauses before every call on a shared path. A killed thread loses its locks at that point and
does nothing more.
"""

import fcntl
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STOPS = {
    os: ("mkdir", "open", "rename", "replace", "unlink", "rmdir", "scandir", "lstat", "stat"),
    fcntl: ("flock",),
    io: ("open",),
    time: ("sleep",),
}
"""The calls before which an actor pauses, if they concern the shared folders."""
SILENT = {os: ("close", "fsync", "write")}
"""Calls that a killed actor skips as well."""
MAX_STOPS = 10_000
"""An actor that has not finished after so many stops is in an endless loop."""


class Killed(BaseException):
    """Unwinds a killed actor past its cleanup."""


@dataclass
class Actor:
    """A thread that advances one stop at a time."""

    work: Callable[[], None]
    stops: int = 0
    killed: bool = False
    waits: bool = False
    finished: bool = False
    error: BaseException | None = None
    descriptors: set[int] = field(default_factory=set)
    resume_signal: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def start(self) -> None:
        """Run up to the first stop."""
        threading.Thread(target=self._run, daemon=True).start()
        self.stopped.acquire()

    def _run(self) -> None:
        ACTORS[threading.get_ident()] = self
        try:
            self.work()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            del ACTORS[threading.get_ident()]
            self.finished = True
            self.stopped.release()

    def stop(self, name: str) -> None:
        """Pause until the scheduler resumes this actor."""
        self.stops += 1
        self.waits = name == "sleep"
        if self.stops > MAX_STOPS:
            raise AssertionError(f"the actor did not finish within {MAX_STOPS} stops")
        self.stopped.release()
        self.resume_signal.acquire()
        if self.killed:
            raise Killed

    def step(self) -> None:
        """Run up to the next stop."""
        self.resume_signal.release()
        self.stopped.acquire()

    def run_steps(self, count: int, *, until_it_waits: bool = False) -> None:
        """Advance by at most `count` stops."""
        for _ in range(count):
            if self.finished:
                return
            self.step()
            if self.waits and until_it_waits:
                return

    def kill(self, close_file: Callable[[int], None]) -> None:
        """Kill the actor at its current stop: release its locks and run nothing more."""
        if self.finished:
            return
        self.killed = True
        for descriptor in self.descriptors:
            close_file(descriptor)
        self.step()


ACTORS: dict[int, Actor] = {}
"""The actors by thread identifier."""


@contextmanager
def patch_calls(base: Path) -> Iterator[Callable[[int], None]]:
    """Make actors pause before calls on paths in a folder; yield the original `os.close`."""
    close_file, originals = os.close, []
    patched_calls = [
        (module, name)
        for call_table in (STOPS, SILENT)
        for module in call_table
        for name in call_table[module]
    ]
    for module, name in patched_calls:
        originals.append((module, name, getattr(module, name)))
        is_stop = module in STOPS and name in STOPS[module]
        setattr(module, name, _wrap_call(getattr(module, name), name, is_stop, str(base)))
    try:
        yield close_file
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


def _wrap_call(
    original: Callable[..., Any], name: str, is_stop: bool, base: str
) -> Callable[..., Any]:
    def run_call(*arguments: Any, **options: Any) -> Any:
        actor = ACTORS.get(threading.get_ident())
        if actor is None:
            return original(*arguments, **options)
        if actor.killed:
            raise Killed
        if is_stop and _is_shared_call(name, arguments, options, base):
            actor.stop(name)
        if name == "sleep":
            return None
        returned = original(*arguments, **options)
        if name == "open" and isinstance(returned, int):
            actor.descriptors.add(returned)
        if name == "close":
            actor.descriptors.discard(arguments[0])
        return returned

    return run_call


def _is_shared_call(name: str, arguments: Sequence[Any], options: Any, base: str) -> bool:
    """Return whether other actors see a call: it concerns the folder or one directly below it."""
    if name in ("flock", "sleep") or options.get("dir_fd") is not None:
        return True
    if not arguments or isinstance(arguments[0], int):
        return False
    path = os.fspath(arguments[0])
    return str(path).startswith(base) and str(path)[len(base) :].count("/") <= 2


def run_in_order(
    actors: Sequence[Actor], switches: Sequence[int], close_file: Callable[[int], None]
) -> None:
    """Run each actor in turn for the number of steps in `switches`, then run all to their end.

    A negative number kills the actor after that many steps.
    """
    for actor in actors:
        actor.start()
    for turn, count in enumerate(switches):
        actor = actors[turn % len(actors)]
        actor.run_steps(abs(count) - (count < 0))
        if count < 0:
            actor.kill(close_file)
    while unfinished := [actor for actor in actors if not actor.finished]:
        for actor in unfinished:
            actor.run_steps(MAX_STOPS, until_it_waits=True)
