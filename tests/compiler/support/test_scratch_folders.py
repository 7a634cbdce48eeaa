"""Scratch folders are removed after their step, or by the next step if the process was killed."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tcc.compiler.support import atomic_files
from tcc.compiler.support.atomic_files import MachineError

KILL_IN_STEP = """
import os, signal
from tcc.compiler.support import atomic_files
with atomic_files.create_scratch_folder() as folder:
    (folder / "deep").mkdir()
    (folder / "deep/file").write_bytes(b"1")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_killed(temporary: Path) -> Path:
    completed = subprocess.run(
        [sys.executable, "-c", KILL_IN_STEP], capture_output=True, text=True, check=False
    )
    assert completed.returncode == -signal.SIGKILL, completed.stderr
    return Path(completed.stdout.strip())


def test_folder_exists_only_during_its_step(temporary):
    with atomic_files.create_scratch_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").mkdir()
        (folder / "a/b").write_bytes(b"1")
    assert list_names(temporary) == []


def test_errors_of_the_step_are_unchanged(temporary):
    with pytest.raises(ValueError, match="mine"), atomic_files.create_scratch_folder():
        raise ValueError("mine")
    with pytest.raises(FileNotFoundError), atomic_files.create_scratch_folder() as folder:
        (folder / "nothing").read_bytes()
    assert list_names(temporary) == []


def test_leftovers_of_a_killed_process_are_removed(temporary):
    leftover = run_killed(temporary)
    assert (leftover / "deep/file").is_file()
    with atomic_files.create_scratch_folder() as folder:
        assert list_names(temporary) == [folder.name]
    assert list_names(temporary) == []


def test_folder_in_use_is_kept(temporary):
    with atomic_files.create_scratch_folder() as scratch:
        (scratch / "x").write_bytes(b"1")
        with atomic_files.create_scratch_folder():
            assert (scratch / "x").is_file()
        atomic_files.remove_stale_scratch()
        assert (scratch / "x").is_file()


def test_other_folders_are_kept(temporary):
    (temporary / "tcc-projects").mkdir()
    (temporary / "tcc-scratch-0123456789").mkdir()
    (temporary / "tcc-scratch-0123456789ab").mkdir()
    (temporary / "tcc-scratch-0123456789ab/mine.txt").write_text("no mark is here")
    (temporary / "tcc-scratch-0123456789ac").write_text("a file")
    (temporary / "elsewhere").mkdir()
    (temporary / "elsewhere" / atomic_files.SCRATCH_MARK).touch()
    (temporary / "tcc-scratch-0123456789ad").symlink_to(temporary / "elsewhere")
    previous_names = list_names(temporary)
    atomic_files.remove_stale_scratch()
    assert list_names(temporary) == previous_names
    assert list_names(temporary / "elsewhere") == [atomic_files.SCRATCH_MARK]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_folder_of_another_user_is_kept(temporary):
    leftover = run_killed(temporary)
    os.chown(leftover, 12345, 12345)
    atomic_files.remove_stale_scratch()
    assert (leftover / "deep/file").is_file()


def test_empty_unmarked_folder_is_removed(temporary):
    (temporary / "tcc-scratch-0123456789ab").mkdir()
    atomic_files.remove_stale_scratch()
    assert list_names(temporary) == []


def test_cleanup_time_is_limited(temporary, monkeypatch):
    run_killed(temporary)
    monkeypatch.setattr(atomic_files, "CLEANUP_SECONDS", -1)
    atomic_files.remove_stale_scratch()
    assert len(list_names(temporary)) == 1


@pytest.mark.parametrize("has_path", [True, False])
def test_full_disk_is_reported_with_the_folder(temporary, has_path):
    def fill() -> None:
        with atomic_files.create_scratch_folder() as folder:
            path_arguments = [str(folder / "x")] if has_path else []
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *path_arguments)

    with pytest.raises(MachineError) as caught:
        fill()
    message = str(caught.value)
    assert message.startswith(
        "error[E0604]: cannot write temporary files: No space left on device\n"
    )
    assert f"--> {temporary}\n" in message
    assert "set TMPDIR to a folder on another disk" in message
    assert list_names(temporary) == []


def test_full_disk_is_detected_behind_other_errors(temporary, monkeypatch):
    """For example from numpy, and from programs that only report a failure."""
    monkeypatch.setattr(atomic_files, "MIN_FREE_BYTES", 1 << 60)
    with (
        pytest.raises(MachineError, match="No space left on device"),
        atomic_files.create_scratch_folder(),
    ):
        raise OSError("262144 requested and 9184 written")
    with (
        pytest.raises(MachineError, match="No space left on device"),
        atomic_files.create_scratch_folder() as folder,
    ):
        atomic_files.check_disk_space(folder)


def test_full_disk_elsewhere_is_not_reported_for_this_folder(temporary, tmp_path):
    with pytest.raises(OSError, match="No space left"), atomic_files.create_scratch_folder():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/x")


def test_missing_temporary_folder_is_reported(temporary, monkeypatch):
    def raise_missing() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", raise_missing)
    with (
        pytest.raises(MachineError, match="No usable temporary directory"),
        atomic_files.create_scratch_folder(),
    ):
        pass
