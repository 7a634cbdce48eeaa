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
MOST = 10_000
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
    done: bool = False
    error: BaseException | None = None
    held: set[int] = field(default_factory=set)
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
            self.done = True
            self.stopped.release()

    def stop(self, name: str) -> None:
        """Wait until it is this actor's turn."""
        self.stops += 1
        self.waits = name == "sleep"
        if self.stops > MOST:
            raise AssertionError("it never ends")
        self.stopped.release()
        self.go.acquire()
        if self.killed:
            raise Killed

    def step(self) -> None:
        """Go on to the next stop."""
        self.go.release()
        self.stopped.acquire()

    def steps(self, count: int, *, until_it_waits: bool = False) -> None:
        """Go on by so many stops at most."""
        for _ in range(count):
            if self.done:
                return
            self.step()
            if self.waits and until_it_waits:
                return

    def kill(self, close: Callable[[int], None]) -> None:
        """End it where it stands: its locks are dropped, and it does nothing more."""
        if self.done:
            return
        self.killed = True
        for descriptor in self.held:
            close(descriptor)
        self.step()


ACTORS: dict[int, Actor] = {}
"""The actors by the number of their thread."""


@contextmanager
def patched(base: Path) -> Iterator[Callable[[int], None]]:
    """Have actors stop before calls about what lies in a folder; gives the real `close`."""
    close, kept = os.close, []
    calls = [(home, name) for listed in (STOPS, SILENT) for home in listed for name in listed[home]]
    for home, name in calls:
        kept.append((home, name, getattr(home, name)))
        stops = home in STOPS and name in STOPS[home]
        setattr(home, name, _call(getattr(home, name), name, stops, str(base)))
    try:
        yield close
    finally:
        for home, name, original in kept:
            setattr(home, name, original)


def _call(original: Callable[..., Any], name: str, stops: bool, base: str) -> Callable[..., Any]:
    def call(*words: Any, **options: Any) -> Any:
        actor = ACTORS.get(threading.get_ident())
        if actor is None:
            return original(*words, **options)
        if actor.killed:
            raise Killed
        if stops and _shared(name, words, options, base):
            actor.stop(name)
        if name == "sleep":
            return None
        found = original(*words, **options)
        if name == "open" and isinstance(found, int):
            actor.held.add(found)
        if name == "close":
            actor.held.discard(words[0])
        return found

    return call


def _shared(name: str, words: Sequence[Any], options: Any, base: str) -> bool:
    """Whether a call is about something that others see: in the folder, or one below it."""
    if name in ("flock", "sleep") or options.get("dir_fd") is not None:
        return True
    if not words or isinstance(words[0], int):
        return False
    path = os.fspath(words[0])
    return str(path).startswith(base) and str(path)[len(base) :].count("/") <= 2


def ordered(actors: Sequence[Actor], switches: Sequence[int], close: Callable[[int], None]) -> None:
    """Run actors: the first makes so many steps, then the next, and so on; at last all end.

    A negative number kills the actor after as many steps.
    """
    for actor in actors:
        actor.start()
    for turn, count in enumerate(switches):
        actor = actors[turn % len(actors)]
        actor.steps(abs(count) - (count < 0))
        if count < 0:
            actor.kill(close)
    while left := [actor for actor in actors if not actor.done]:
        for actor in left:
            actor.steps(MOST, until_it_waits=True)
