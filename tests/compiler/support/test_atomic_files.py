"""Files and folders are written completely or not at all."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tcc.compiler.support import atomic_files
from tcc.compiler.support.atomic_files import MachineError, restore_folder, write_file, write_tree
from tcc.compiler.support.diagnostics import UserError

OLD = {"manifest": b"old", "model/a.bin": b"1"}
NEW = {"manifest": b"new", "model/b.bin": b"22", "run": b"#!"}


def read_tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def list_names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def get_code(caught: pytest.ExceptionInfo[UserError]) -> str:
    return caught.value.diagnostics[0].code


class TestFile:
    def test_file_is_written_with_its_folders(self, tmp_path):
        write_file(tmp_path / "a/b/c.txt", b"text")
        assert read_tree(tmp_path) == {"a/b/c.txt": b"text"}

    def test_replaced_file_keeps_its_permissions(self, tmp_path):
        path = tmp_path / "x"
        path.write_bytes(b"old")
        path.chmod(0o640)
        write_file(path, b"new")
        assert path.read_bytes() == b"new"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert list_names(tmp_path) == ["x"]

    def test_new_files_follow_the_umask(self, tmp_path):
        previous = os.umask(0o027)
        try:
            write_file(tmp_path / "x", b"")
        finally:
            os.umask(previous)
        assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640

    def test_symbolic_link_is_kept(self, tmp_path):
        (tmp_path / "real").write_bytes(b"old")
        (tmp_path / "link").symlink_to("real")
        write_file(tmp_path / "link", b"new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_bytes() == b"new"

    def test_device_is_written_and_not_replaced(self):
        write_file(Path("/dev/null"), b"anything")
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)

    def test_a_folder_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="it is a folder") as caught:
            write_file(tmp_path, b"")
        assert get_code(caught) == "E0603"

    def test_refused_file_is_unchanged(self, tmp_path):
        (tmp_path / "x").write_bytes(b"theirs")
        with pytest.raises(UserError, match="cannot replace this: it already exists") as caught:
            write_file(tmp_path / "x", b"", atomic_files.refuse_replacing)
        assert get_code(caught) == "E0602"
        assert read_tree(tmp_path) == {"x": b"theirs"}

    def test_full_disk_keeps_the_old_file(self, tmp_path, full_disk):
        (tmp_path / "x").write_bytes(b"old")
        with full_disk(), pytest.raises(MachineError, match="No space left on device") as caught:
            write_file(tmp_path / "x", b"new")
        assert caught.value.diagnostic.code == "E0604"
        assert read_tree(tmp_path) == {"x": b"old"}


class TestTree:
    def test_programs_are_executable(self, tmp_path):
        write_tree(tmp_path / "b", NEW, frozenset({"run"}))
        assert read_tree(tmp_path / "b") == NEW
        assert os.access(tmp_path / "b/run", os.X_OK)
        assert not (tmp_path / "b/manifest").stat().st_mode & 0o111

    def test_folder_is_replaced_completely(self, tmp_path):
        write_tree(tmp_path / "b", OLD, frozenset())
        write_tree(tmp_path / "b", NEW, frozenset(), atomic_files.allow_replacing)
        assert read_tree(tmp_path / "b") == NEW
        assert list_names(tmp_path) == ["b"]

    def test_refused_folder_is_unchanged(self, tmp_path):
        write_tree(tmp_path / "b", OLD, frozenset())
        with pytest.raises(UserError, match="cannot replace this"):
            write_tree(tmp_path / "b", NEW, frozenset())
        assert read_tree(tmp_path / "b") == OLD
        assert list_names(tmp_path) == ["b"]

    def test_link_to_a_folder_is_kept(self, tmp_path):
        write_tree(tmp_path / "real", OLD, frozenset())
        (tmp_path / "link").symlink_to("real")
        write_tree(tmp_path / "link", NEW, frozenset(), atomic_files.allow_replacing)
        assert (tmp_path / "link").is_symlink()
        assert read_tree(tmp_path / "real") == NEW

    def test_full_disk_keeps_the_old_folder_and_no_partial_files(self, tmp_path, full_disk):
        write_tree(tmp_path / "b", OLD, frozenset())
        with full_disk(after=1), pytest.raises(MachineError, match="no partial file"):
            write_tree(tmp_path / "b", NEW, frozenset(), atomic_files.allow_replacing)
        assert read_tree(tmp_path / "b") == OLD
        assert list_names(tmp_path) == ["b"]

    def test_interrupt_between_the_renames_restores_the_old_folder(self, tmp_path, monkeypatch):
        write_tree(tmp_path / "b", OLD, frozenset())
        rename = Path.rename

        def interrupt_rename(self, target):
            if ".tcc-new-" in self.name:
                raise KeyboardInterrupt
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", interrupt_rename)
        with pytest.raises(KeyboardInterrupt):
            write_tree(tmp_path / "b", NEW, frozenset(), atomic_files.allow_replacing)
        assert read_tree(tmp_path / "b") == OLD
        assert list_names(tmp_path) == ["b"]

    def test_work_of_a_running_process_is_kept(self, tmp_path):
        other_folder = tmp_path / ".b.tcc-new-01234567"
        other_folder.mkdir()
        descriptor = os.open(other_folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        write_tree(tmp_path / "b", NEW, frozenset())
        assert list_names(tmp_path) == [other_folder.name, "b"]
        os.close(descriptor)
        write_tree(tmp_path / "b", NEW, frozenset(), atomic_files.allow_replacing)
        assert list_names(tmp_path) == ["b"]

    def test_leftovers_for_another_target_are_removed(self, tmp_path):
        (tmp_path / ".c.tcc-new-01234567").mkdir()
        write_tree(tmp_path / "b", NEW, frozenset())
        assert list_names(tmp_path) == ["b"]

    def test_similar_names_are_kept(self, tmp_path):
        for name in (".b.tcc-new-0123456", ".c.tcc-old-01234567", "b.tcc-new-01234567"):
            (tmp_path / name).mkdir()
        previous = list_names(tmp_path)
        write_tree(tmp_path / "b", NEW, frozenset())
        assert list_names(tmp_path) == sorted([*previous, "b"])

    def test_wait_for_a_locked_folder_is_limited(self, tmp_path, monkeypatch):
        monkeypatch.setattr(atomic_files, "LOCK_TIMEOUT", 0.05)
        descriptor = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process has locked this folder"):
            write_tree(tmp_path / "b", NEW, frozenset())
        os.close(descriptor)
        assert list_names(tmp_path) == []


KILL_AT_CALL = """
import os, signal, sys
from pathlib import Path
from tcc.compiler.support import atomic_files as files
call, number, target = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
home, name = (os, call) if hasattr(os, call) and call == "fsync" else (Path, call)
original, calls = getattr(home, name), []
def kill_process(*arguments):
    calls.append(1)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
setattr(home, name, kill_process)
files.write_tree(target, {"manifest": b"new", "model/b.bin": b"22", "run": b"#!"}, frozenset(), files.allow_replacing)
"""


@pytest.mark.parametrize(
    ("call", "number"), [("fsync", 1), ("fsync", 3), ("rename", 1), ("rename", 2)]
)
def test_kill_at_any_moment_loses_nothing(tmp_path, call, number):
    """The process is killed while writing, before the renames or between them."""
    target = tmp_path / "b"
    write_tree(target, OLD, frozenset())
    command = [sys.executable, "-c", KILL_AT_CALL, call, str(number), str(target)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    if (call, number) == ("rename", 2):
        assert not target.exists()
        restore_folder(target)
    assert read_tree(target) == OLD
    write_tree(target, NEW, frozenset(), atomic_files.allow_replacing)
    assert read_tree(target) == NEW
    assert list_names(tmp_path) == ["b"]


@pytest.mark.parametrize(
    ("number", "kind", "expected"),
    [
        (errno.EACCES, UserError, "E0603"),
        (errno.EROFS, UserError, "E0603"),
        (errno.ENOSPC, MachineError, "E0604"),
        (errno.EDQUOT, MachineError, "E0604"),
        (errno.EIO, MachineError, "E0604"),
    ],
)
def test_system_errors_are_user_or_machine_errors(number, kind, expected):
    raised = atomic_files.explain(OSError(number, os.strerror(number)), "out/x", "write this")
    assert isinstance(raised, kind)
    assert f"[{expected}]: cannot write this: {os.strerror(number)}" in str(raised)
    assert "--> out/x" in str(raised)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_missing_permission_is_reported(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        write_file(tmp_path / "x", b"")


def test_file_in_place_of_a_folder_is_reported(tmp_path):
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(UserError, match=r"E0603.*cannot write this"):
        write_tree(tmp_path / "out/b", NEW, frozenset())
