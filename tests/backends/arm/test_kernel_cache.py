"""The cache of compiled kernels: only kernels compiled here are linked into a library."""

import hashlib
import os
from pathlib import Path

import pytest

pytest.importorskip("ziglang")

from tcc.backends.arm.codegen import micro_objects, zig
from tcc.backends.arm.machine import MACHINES
from tcc.compiler.support import user_folders

EVIL = b"\x7fELF of a stranger"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Compiles a kernel or takes it from the cache, and reports the number of compilations."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "dispatch.c").write_text("int x;")
    calls = []

    def run(folder: Path, *arguments: str) -> None:
        calls.append(arguments)
        (folder / "dispatch.o").write_bytes(b"compiled")

    monkeypatch.setattr(zig, "run", run)
    machine = MACHINES[0]

    def compile() -> tuple[bytes, int]:
        kernel = micro_objects._compile_object(tmp_path, "dispatch", machine, machine.cpu)
        return kernel, len(calls)

    return compile


def list_entries() -> list[Path]:
    return list(user_folders.prepare_cache_folder(user_folders.KERNELS_FOLDER).iterdir())


def test_a_kernel_is_compiled_once(compiler):
    assert [compiler(), compiler()] == [(b"compiled", 1), (b"compiled", 1)]


@pytest.mark.parametrize(
    "plant",
    [
        lambda entry: hashlib.sha256(EVIL).digest() + EVIL,  # in the former format
        lambda entry: entry[:32] + EVIL,
        lambda entry: bytes(32) + EVIL,
        lambda entry: EVIL,
        lambda entry: b"",
    ],
)
def test_a_planted_kernel_is_not_used(plant, compiler):
    compiler()
    (entry,) = list_entries()
    entry.write_bytes(plant(entry.read_bytes()))
    assert compiler() == (b"compiled", 2)
    assert compiler() == (b"compiled", 2)


def test_a_cache_from_elsewhere_is_not_used(compiler, tmp_path, monkeypatch):
    """With the other user's key: an archive may contain both folders, and a variable may name one."""
    compiler()
    (entry,) = list_entries()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    assert compiler() == (b"compiled", 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert compiler() == (b"compiled", 3)
    assert [path.name for path in list_entries()] == [entry.name]
    assert user_folders.prepare_cache_folder(user_folders.KERNELS_FOLDER).is_relative_to(
        tmp_path / "home"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make files of others")
def test_a_folder_of_another_user_is_not_used(compiler, tmp_path, monkeypatch):
    compiler()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    os.chown(tmp_path / "cache/tcc", 65534, 65534)
    assert compiler() == (b"compiled", 2)
    assert (
        user_folders.prepare_cache_folder(user_folders.KERNELS_FOLDER) == tmp_path / "tcc-kernels-0"
    )
