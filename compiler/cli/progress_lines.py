"""Lines about long work, for logs: where no terminal shows a bar, silence looks like a hang."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

EVERY = 60.0
"""Seconds without a line after which there is one."""


@dataclass
class ProgressLines:
    """Writes how far long work is, from a thread of its own, whenever nothing was said for long.

    A stage is told with the share of it that is done and the time that the whole work has taken.
    """

    write: Callable[[str], None]
    _began: float = field(default_factory=time.monotonic)
    _spoke: float = field(default_factory=time.monotonic)
    _stage: str = ""
    _share: float | None = None
    _detail: str = ""
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and wait until nothing more is written."""
        self._ended.set()
        if self._thread:
            self._thread.join()

    def update(self, stage: str, parts_done: int, total: int) -> None:
        """Take in how far a stage is; a stage of one part has no share."""
        if stage != self._stage:
            self._detail = ""
        self._stage, self._share = stage, parts_done / total if total > 1 else None

    def add_detail(self, text: str) -> None:
        """Take in what else is known of the stage."""
        self._detail = text

    def hear(self) -> None:
        """Take in that a line was written by somebody else."""
        self._spoke = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(max(0.01, self._spoke + EVERY - time.monotonic())):
            if time.monotonic() >= self._spoke + EVERY and self._stage:
                self.write(self._line())
                self.hear()

    def _line(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        share = "" if self._share is None else f" {self._share:.0%},"
        detail = f" {self._detail}," if self._detail else ""
        return f"{self._stage}:{share}{detail} after {minutes} min {seconds:02} s"
