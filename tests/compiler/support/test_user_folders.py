"""Folders and files: those that only the user and root can change, and those that others can."""

import os
import stat
from pathlib import Path

import pytest

from tcc.compiler.support import user_folders

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root to create files of other users")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    for name in user_folders.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_relative_variable_is_ignored_with_a_notice(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "c")
    assert user_folders.locate_folder("XDG_CACHE_HOME", "x") == home / ".cache/tcc/x"
    (notice,) = user_folders.describe_ignored_variables()
    assert (
        notice
        == "XDG_CACHE_HOME=c is ignored because it is not an absolute path; ~/.cache is used instead"
    )
    assert user_folders.prepare_cache_folder("kernels") == home / ".cache/tcc/kernels"
    assert not Path("c").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "c"))
    assert user_folders.describe_ignored_variables() == ()
    assert user_folders.prepare_cache_folder("kernels") == home / "c/tcc/kernels"


def test_new_folders_are_private(home):
    user_folders.make_folder(home / "a/b/c")
    for path in (home / "a", home / "a/b", home / "a/b/c"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


PARTS = (".", "..", "../..", "../../..")


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o707])
@pytest.mark.parametrize("part", PARTS)
def test_folder_is_unsafe_below_a_writable_folder(mode, part, home):
    folder = user_folders.prepare_cache_folder("kernels")
    assert user_folders.find_obstacle(folder) == ""
    weak = (folder / part).resolve()
    weak.chmod(mode)
    assert f"others can write to {weak}" in user_folders.find_obstacle(folder)
    assert user_folders.prepare_cache_folder("kernels") != folder


@pytest.mark.parametrize("part", PARTS)
def test_folder_below_a_sticky_folder_is_safe(part, home):
    """As in `/tmp`: everybody writes there, and nobody removes files of other users."""
    folder = user_folders.prepare_cache_folder("kernels")
    (folder / part).resolve().chmod(0o1777)
    assert bool(user_folders.find_obstacle(folder)) == (part == ".")


@AS_ROOT
@pytest.mark.parametrize("part", PARTS)
def test_folder_below_that_of_another_user_is_unsafe(part, home):
    folder = user_folders.prepare_cache_folder("kernels")
    owned = (folder / part).resolve()
    os.chown(owned, NOBODY, NOBODY)
    assert f"{owned} belongs to user nobody" in user_folders.find_obstacle(folder)
    assert user_folders.prepare_cache_folder("kernels") != folder


@AS_ROOT
def test_link_and_its_target_are_checked(home, tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (home / ".cache").symlink_to(target)
    assert user_folders.prepare_cache_folder("kernels") == home / ".cache/tcc/kernels"
    os.chown(target, NOBODY, NOBODY)
    assert "belongs to user nobody" in user_folders.find_obstacle(home / ".cache/tcc/kernels")
    os.chown(target, 0, 0)
    os.chown(home / ".cache", NOBODY, NOBODY, follow_symlinks=False)
    assert f"{home}/.cache belongs to" in user_folders.find_obstacle(home / ".cache/tcc/kernels")


def test_circular_links_are_reported(home):
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    assert "cannot be checked" in user_folders.find_exposure(home / "a/x")
    assert user_folders.find_exposure(home / "missing/x") == ""


@pytest.mark.parametrize("path", ["..", ".", "x/../.."])
def test_dots_in_paths_are_resolved_like_the_system(path, home):
    (home / "x").mkdir()
    (home / "d").mkdir()
    (home / "d").chmod(0o777)
    assert "others can write" in user_folders.find_exposure(home / "x/../d")
    assert user_folders.find_exposure(home / "x" / path) == ""


@AS_ROOT
def test_temporary_cache_of_another_user_is_refused(home, tmp_path):
    (home / ".cache").mkdir()
    (home / ".cache").chmod(0o777)
    folder = user_folders.prepare_cache_folder("kernels")
    assert folder == tmp_path / "tmp/tcc-kernels-0"
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match="set XDG_CACHE_HOME"):
        user_folders.prepare_cache_folder("kernels")


@AS_ROOT
def test_another_user_cannot_change_a_safe_folder(home):
    """A process of another user tries each change of a safe folder, and all fail."""
    folder = user_folders.prepare_cache_folder("kernels")
    user_folders.write_cached(folder / "x", b"content")
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        for act in (
            lambda: (folder / "x").write_bytes(b""),
            lambda: (folder / "y").write_bytes(b""),
            lambda: folder.rename(folder.with_name("z")),
            lambda: user_folders.locate_key_file().read_bytes(),
        ):
            try:
                act()
            except PermissionError:
                continue
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert user_folders.read_cached(folder / "x") == b"content"


def test_cached_entry_is_bound_to_its_name(home):
    folder = user_folders.prepare_cache_folder("kernels")
    user_folders.write_cached(folder / "x", b"content")
    assert user_folders.read_cached(folder / "x") == b"content"
    (folder / "y").write_bytes((folder / "x").read_bytes())
    assert user_folders.read_cached(folder / "y") is None
    entry = bytearray((folder / "x").read_bytes())
    for index in range(len(entry)):
        entry[index] ^= 1 << index % 8
        (folder / "x").write_bytes(entry)
        assert user_folders.read_cached(folder / "x") is None
        entry[index] ^= 1 << index % 8
    for cut in (b"", bytes(entry[:31]), bytes(entry[:32]), bytes(entry[:-1])):
        (folder / "x").write_bytes(cut)
        assert user_folders.read_cached(folder / "x") is None


def test_entry_sealed_with_another_key_is_ignored(home, monkeypatch):
    folder = user_folders.prepare_cache_folder("kernels")
    user_folders.write_cached(folder / "x", b"content")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "other"))
    assert user_folders.read_cached(folder / "x") is None
    user_folders.write_cached(folder / "x", b"new")
    assert user_folders.read_cached(folder / "x") == b"new"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert user_folders.read_cached(folder / "x") is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_key_readable_by_others_is_replaced(mode, home):
    folder = user_folders.prepare_cache_folder("kernels")
    user_folders.write_cached(folder / "x", b"content")
    previous_key = user_folders.locate_key_file().read_bytes()
    user_folders.locate_key_file().chmod(mode)
    assert user_folders.read_cached(folder / "x") is None
    assert user_folders.locate_key_file().read_bytes() != previous_key
    assert stat.S_IMODE(user_folders.locate_key_file().stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_invalid_key_is_replaced(content, home):
    assert user_folders.find_key_obstacle() == ""
    user_folders.locate_key_file().write_bytes(content)
    assert user_folders.seal("x", b"")
    assert len(user_folders.locate_key_file().read_bytes()) == 32


def test_without_a_key_nothing_is_stored_or_read(home):
    folder = user_folders.prepare_cache_folder("kernels")
    user_folders.write_cached(folder / "x", b"content")
    user_folders.locate_key_file().parent.chmod(0o777)
    assert user_folders.read_cached(folder / "x") is None
    user_folders.write_cached(folder / "y", b"content")
    assert not (folder / "y").exists()
    assert "others can write" in user_folders.find_key_obstacle()


def test_parallel_processes_use_one_key(home):
    children = []
    for _ in range(8):
        child = os.fork()
        if not child:
            os._exit(0 if user_folders.seal("x", b"") else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert [path.name for path in user_folders.locate_key_file().parent.iterdir()] == ["cache-key"]
