"""Folders shared by all processes of a test run. The first process that asks fills them."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

COMPLETE_MARK = "done"


def fill_once(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], object]) -> Path:
    """Return the folder of a name, filled by this or another process."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / COMPLETE_MARK).exists():
            shutil.rmtree(folder / name, ignore_errors=True)  # left over from a failed attempt
            (folder / name).mkdir()
            fill(folder / name)
            (folder / COMPLETE_MARK).touch()
    return folder / name
