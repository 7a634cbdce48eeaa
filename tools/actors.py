"""Threads that stand for processes, and go on one call to the system at a time.

A lock belongs to an open file, not to a process, so that threads compete for it as processes do.
Each stops before every call that is about what it shares with others. A killed one loses its locks
where it stands and does nothing more.
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
"""The calls before which an actor stops, where they are about the folders that are shared."""
SILENT = {os: ("close", "fsync", "write")}
"""Calls that a killed actor does not make either."""
MAX_STOPS = 10_000
"""Stops after which an actor that still is not done goes round in circles."""


class Killed(BaseException):
    """Unwinds an actor that was killed, past whatever it would do as it ends."""


@dataclass
class Actor:
    """A thread that goes on one stop at a time."""

    work: Callable[[], None]
    stops: int = 0
    killed: bool = False
    waits: bool = False
    finished: bool = False
    error: BaseException | None = None
    descriptors: set[int] = field(default_factory=set)
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def start(self) -> None:
        """Begin, up to the first stop."""
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
        """Wait until it is this actor's turn."""
        self.stops += 1
        self.waits = name == "sleep"
        if self.stops > MAX_STOPS:
            raise AssertionError("it never ends")
        self.stopped.release()
        self.go.acquire()
        if self.killed:
            raise Killed

    def step(self) -> None:
        """Go on to the next stop."""
        self.go.release()
        self.stopped.acquire()

    def run_steps(self, count: int, *, until_it_waits: bool = False) -> None:
        """Go on by so many stops at most."""
        for _ in range(count):
            if self.finished:
                return
            self.step()
            if self.waits and until_it_waits:
                return

    def kill(self, close_file: Callable[[int], None]) -> None:
        """End it where it stands: its locks are dropped, and it does nothing more."""
        if self.finished:
            return
        self.killed = True
        for descriptor in self.descriptors:
            close_file(descriptor)
        self.step()


ACTORS: dict[int, Actor] = {}
"""The actors by the number of their thread."""


@contextmanager
def patch_calls(base: Path) -> Iterator[Callable[[int], None]]:
    """Have actors stop before calls about what lies in a folder; gives the real `close_file`."""
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
    """Whether a call is about something that others see: in the folder, or one below it."""
    if name in ("flock", "sleep") or options.get("dir_fd") is not None:
        return True
    if not arguments or isinstance(arguments[0], int):
        return False
    path = os.fspath(arguments[0])
    return str(path).startswith(base) and str(path)[len(base) :].count("/") <= 2


def run_in_order(
    actors: Sequence[Actor], switches: Sequence[int], close_file: Callable[[int], None]
) -> None:
    """Run actors: the first makes so many steps, then the next, and so on; at last all end.

    A negative number kills the actor after as many steps.
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
