"""Caches that somebody else wrote to: a build out of one gives the bytes that it always gives."""

import atexit
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from random import Random

from bundles import PROGRAM, SPEC
from case import Case, Front, Outcome
from own_places import PLACES

WORDS = ("build", "tiny.yaml", "--target", "onnxruntime", "--out", "out", "-q")
NAME = "tiny-onnxruntime-fp32"


@cache
def _place() -> Path:
    """Return a folder with two bundles, the cache that both left, and the key of its seals."""
    folder = Path(tempfile.mkdtemp(prefix="caches-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "tiny.yaml").write_text(SPEC)
    environment = {**os.environ, "TCC_CACHE": str(folder / "tcc_cache")}
    environment["XDG_STATE_HOME"] = str(folder / "xdg_state_home")
    environment.pop("TCC_CACHE_LIMIT", None)
    for seed in ("1", "0"):
        words = [sys.executable, "-c", PROGRAM, *WORDS, "--seed", seed]
        subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    return folder


@cache
def _wanted() -> Mapping[str, str]:
    return _digests(_place() / "out" / NAME)


def _digests(folder: Path) -> Mapping[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _make(numbers: Random) -> Case:
    words = (*WORDS, "--seed", "0")
    prepare = partial(_prepared, numbers.getrandbits(64))
    return Case(words, {"tiny.yaml": SPEC.encode()}, prepare, _checked)


def _prepared(seed: int, folder: Path) -> None:
    numbers = Random(seed)
    shutil.copytree(_place() / "tcc_cache", folder / "tcc_cache")
    shutil.copytree(_place() / "xdg_state_home", folder / "xdg_state_home")
    entries = sorted(p for p in (folder / "tcc_cache").rglob("*") if p.is_file())
    for _ in range(numbers.choice((1, 2, 5))):
        _change(numbers, numbers.choice(entries), entries, folder)
    PLACES.set(folder, "TCC_CACHE", "XDG_STATE_HOME")


def _change(numbers: Random, entry: Path, entries: Sequence[Path], folder: Path) -> None:
    """Change an entry, the key of the seals, or who may write to one of them."""
    seal = folder / "xdg_state_home/tcc/seal"
    match numbers.choice(("entry", "entry", "entry", "entry", "key", "open", "link")):
        case "key":
            (seal / "cache-key").write_bytes(numbers.randbytes(32))
        case "open":
            numbers.choice((entry.parent.parent, seal)).chmod(0o777)
        case "link":
            entry.unlink()
            entry.symlink_to(numbers.choice(("/dev/zero", entry.name, "nowhere")))
        case _ if entry.is_file() and not entry.is_symlink():
            other = numbers.choice(entries)
            swapped = other.read_bytes() if other.is_file() else b""
            entry.write_bytes(numbers.choice((_edit(numbers, entry.read_bytes()), swapped)))


def _edit(numbers: Random, data: bytes) -> bytes:
    """Return an entry with a bit flipped, cut, or sealed as entries once were: by a hash alone."""
    if not data:
        return data
    at, body = numbers.randrange(len(data)), data[32:][::-1]
    flipped = data[:at] + bytes([data[at] ^ 1 << numbers.randrange(8)]) + data[at + 1 :]
    return numbers.choice((flipped, flipped, data[:at], hashlib.sha256(body).digest() + body))


def _checked(outcome: Outcome, folder: Path) -> str:
    if outcome.code:
        return f"exit {outcome.code}"
    return "" if _digests(folder / "out" / NAME) == _wanted() else "another bundle"


def _warm() -> None:
    _wanted()


CACHES = Front("caches", 500, _make, _warm)
