"""A training of a sweep: a process of its own, `tcc train ...`, in a folder of its own."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tcc.compiler.support import task_places
from tcc.compiler.train import run_folder


@dataclass(frozen=True, slots=True)
class TrialCommand:
    """The words of a training, after `tcc`, and its folder, which all machines see."""

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
    done = task_places.run_command([*command.words, *(["--resume"] if begun else [])])
    if done.code:
        return TrialEnd(None, done.err.strip()[-2000:])
    return TrialEnd(json.loads((folder / run_folder.REPORT).read_bytes()), "")
