"""What is known of a slide's run beside its result: whether it is finished, and what is not yet.

It lies in a hidden folder beside the results. The result itself holds no times, so that it is the
same wherever it was made; whether a slide's file is the one that it was made of is told by them.
"""

import errno
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tcc.compiler.slides import slide_summary
from tcc.compiler.slides.slide_summary import SUMMARY
from tcc.compiler.support import atomic_files, json_records, regular_files
from tcc.compiler.version import __version__

HIDDEN = ".tcc-slides"
RECORD = "finished.json"
LONGEST = 230
"""Bytes of a result's name: file systems take 255, and while it is written it has a longer one."""
MOST = 1 << 24
"""Bytes of a record, and of a summary, that are read."""


def check_name(place: Path) -> None:
    """Refuse a name that leaves no room for what it is called while it is written (E0603)."""
    if len(os.fsencode(place.name)) > LONGEST:
        error = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        raise atomic_files.explain(error, place, "write this")


def folder(place: Path) -> Path:
    """Return where that of a slide lies whose result is to lie at a place."""
    name = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]
    return place.parent / HIDDEN / name


def blocks(place: Path, digest: str) -> Path:
    """Return where the finished blocks of a job lie."""
    return folder(place) / f"blocks-{digest}"


def digest(slide: Path, bundle: bytes, words: Sequence[object]) -> str:
    """Return what tells runs apart whose results differ, in hex.

    Args:
        slide: Its file: one that was touched is another.
        bundle: The bundle's manifest.
        words: What else decides.

    Raises:
        OSError: There is no such slide.
    """
    file = slide.stat()
    about: list[Any] = [os.fsencode(slide.name).hex(), file.st_size]
    about += [file.st_mtime_ns, file.st_ctime_ns, hashlib.sha256(bundle).hexdigest()]
    return hashlib.sha256(json.dumps([__version__, about, *words]).encode()).hexdigest()


def finished(place: Path, request: str) -> dict[str, Any] | None:
    """Return the summary of the result at a place, if it is whole and what is asked for."""
    with suppress(OSError, ValueError, RecursionError):
        with regular_files.opened(folder(place) / RECORD) as file:
            record = json.loads(file.read(MOST))
        if record == {"request": request, "result": _result(place)}:
            with regular_files.opened(place / SUMMARY) as file:
                found: dict[str, Any] = json_records.encode(slide_summary.decode(file.read(MOST)))
                return found
    return None


def finish(place: Path, request: str) -> None:
    """Note that a result is finished, and clear away what it was made of."""
    own = folder(place)
    data = {"request": request, "result": _result(place)}
    atomic_files.write_file(own / RECORD, json.dumps(data).encode())
    for each in own.glob("blocks-*"):
        atomic_files.remove_path(each)


def _result(place: Path) -> str:
    """Return what tells a result from one that files were taken from, or that is another."""
    sizes = sorted((each.name, each.stat().st_size) for each in place.iterdir() if each.is_file())
    made = hashlib.sha256(json.dumps(sizes).encode())
    with regular_files.opened(place / SUMMARY) as file:
        made.update(file.read(MOST))
    return made.hexdigest()
