"""Fuzz caches that somebody else changed: a build must give the same bytes from any cache."""

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
from own_places import CASE_FOLDERS

BUILD_ARGUMENTS = ("build", "tiny.yaml", "--target", "onnxruntime", "--out", "out", "-q")
NAME = "tiny-onnxruntime-fp32"


@cache
def _prepare_folder() -> Path:
    """Return a folder with two bundles, the cache of both builds, and the key of its seals."""
    folder = Path(tempfile.mkdtemp(prefix="caches-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "tiny.yaml").write_text(SPEC)
    environment = {**os.environ, "TCC_CACHE": str(folder / "tcc_cache")}
    environment["XDG_STATE_HOME"] = str(folder / "xdg_state_home")
    environment.pop("TCC_CACHE_LIMIT", None)
    for seed in ("1", "0"):
        command = [sys.executable, "-c", PROGRAM, *BUILD_ARGUMENTS, "--seed", seed]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return folder


@cache
def _compute_expected() -> Mapping[str, str]:
    return _compute_digests(_prepare_folder() / "out" / NAME)


def _compute_digests(folder: Path) -> Mapping[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _make_case(numbers: Random) -> Case:
    arguments = (*BUILD_ARGUMENTS, "--seed", "0")
    prepare = partial(_prepare_case, numbers.getrandbits(64))
    return Case(arguments, {"tiny.yaml": SPEC.encode()}, prepare, _check_bundle)


def _prepare_case(seed: int, folder: Path) -> None:
    numbers = Random(seed)
    shutil.copytree(_prepare_folder() / "tcc_cache", folder / "tcc_cache")
    shutil.copytree(_prepare_folder() / "xdg_state_home", folder / "xdg_state_home")
    cache_files = sorted(p for p in (folder / "tcc_cache").rglob("*") if p.is_file())
    for _ in range(numbers.choice((1, 2, 5))):
        _replace_entry(numbers, numbers.choice(cache_files), cache_files, folder)
    CASE_FOLDERS.set(folder, "TCC_CACHE", "XDG_STATE_HOME")


def _replace_entry(
    numbers: Random, cache_file: Path, cache_files: Sequence[Path], folder: Path
) -> None:
    """Change an entry, the key of the seals, or the write permissions of one of them."""
    seal = folder / "xdg_state_home/tcc/seal"
    match numbers.choice(("entry", "entry", "entry", "entry", "key", "open", "link")):
        case "key":
            (seal / "cache-key").write_bytes(numbers.randbytes(32))
        case "open":
            numbers.choice((cache_file.parent.parent, seal)).chmod(0o777)
        case "link":
            cache_file.unlink()
            cache_file.symlink_to(numbers.choice(("/dev/zero", cache_file.name, "nowhere")))
        case _ if cache_file.is_file() and not cache_file.is_symlink():
            other_file = numbers.choice(cache_files)
            swapped = other_file.read_bytes() if other_file.is_file() else b""
            cache_file.write_bytes(
                numbers.choice((_replace_bytes(numbers, cache_file.read_bytes()), swapped))
            )


def _replace_bytes(numbers: Random, content: bytes) -> bytes:
    """Return an entry with a flipped bit, cut, or with the former seal, which was only a hash."""
    if not content:
        return content
    at, body = numbers.randrange(len(content)), content[32:][::-1]
    flipped = content[:at] + bytes([content[at] ^ 1 << numbers.randrange(8)]) + content[at + 1 :]
    return numbers.choice((flipped, flipped, content[:at], hashlib.sha256(body).digest() + body))


def _check_bundle(outcome: Outcome, folder: Path) -> str:
    if outcome.code:
        return f"exit {outcome.code}"
    return (
        "" if _compute_digests(folder / "out" / NAME) == _compute_expected() else "another bundle"
    )


def _prepare() -> None:
    _compute_expected()


CACHES = Front("caches", 500, _make_case, _prepare)
