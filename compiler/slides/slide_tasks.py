"""A slide of many as a task: a `tcc slide run` of its own, so that none can end the others."""

import json
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tcc.compiler.support import task_places
from tcc.compiler.support.diagnostics import Diagnostic, whole_file

TRIES = 3
"""How often a slide is begun whose process is killed; what is finished of it is not repeated."""


@dataclass(frozen=True, slots=True)
class SlideTask:
    """The words of a command, after `tcc`, and its slide: by a whole path, and as it was typed."""

    words: tuple[str, ...]
    path: str
    typed: str


@dataclass(frozen=True, slots=True)
class SlideEnd:
    """What a slide came to: its document, or what is wrong; `said` are warnings."""

    document: Mapping[str, Any] | None
    problems: tuple[Diagnostic, ...] = ()
    code: int = 0
    said: str = ""


def run(task: SlideTask) -> SlideEnd:
    """Run a slide, again where its process was killed."""
    for _ in range(TRIES):
        end = task_places.run_command(task.words, task_places.ONE_THREAD)
        if end.code >= 0:
            return _end(task, end)
    name = signal.Signals(-end.code).name
    message = f"what ran this slide was ended by {name}, {TRIES} times"
    help = "where memory ran out, take fewer --workers; else the slide's file is to blame"
    return SlideEnd(None, (Diagnostic("E1310", message, whole_file(task.typed), help=help),), 1)


def lost(task: SlideTask, why: str) -> SlideEnd:
    """Return the end of a slide that nothing brought to one."""
    message = "what was to run this slide did not come to an end"
    help = "run the command again: what is finished is not repeated"
    found = Diagnostic("E1318", message, whole_file(task.typed), label=why[:300], help=help)
    return SlideEnd(None, (found,), 1)


def _end(task: SlideTask, end: task_places.ChildEnd) -> SlideEnd:
    document: Any = None
    with suppress(ValueError, RecursionError):
        document = json.loads(end.out)
    if not isinstance(document, dict):
        return lost(task, (end.err or end.out).strip()[-300:])
    if end.code == 0:
        return SlideEnd(document["slides"][0], said=end.err)
    found = tuple(_diagnostic(task, each) for each in document.get("diagnostics", ()))
    if not found:
        return lost(task, str(document.get("error")))
    return SlideEnd(None, found, end.code)


def _diagnostic(task: SlideTask, plain: Mapping[str, Any]) -> Diagnostic:
    at = whole_file(task.typed if plain["file"] == task.path else plain["file"])
    notes = tuple(plain["notes"])
    return Diagnostic(plain["code"], plain["message"], at, plain["label"], notes, plain["help"])
