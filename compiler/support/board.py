"""Copy programs to a board and run them there, over SSH or Android's adb.

Both are the user's own commands, with the user's own keys and settings. Files are copied into a
fresh folder on the board, which is removed afterwards.
"""

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tcc.compiler.support import atomic_files, bounded_process, regular_files
from tcc.compiler.support.bounded_process import HangsError, ProcessOutcome
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool

COMMAND_SECONDS = 120
"""Seconds that a command may take that only copies or queries."""
MAX_FILE_BYTES = 1 << 28
"""Bytes of the largest file that is read back."""
STATUS_MARK = "tcc-status:"
"""Text before the exit status: old versions of adb do not pass the status on."""
_HOST = re.compile(r"[A-Za-z0-9_.@:%\[\]-]+")


class BoardLink(Protocol):
    """A connection to a board: commands to run something there and to copy a file."""

    @property
    def name(self) -> str:
        """The connection's name in messages."""
        ...

    @property
    def temporary_folder(self) -> str:
        """The board's folder for executable files."""
        ...

    @property
    def merges_stderr(self) -> bool:
        """Whether standard error is mixed into standard output."""
        ...

    def build_shell_command(self, command: str) -> tuple[str, ...]:
        """Return the command that runs a shell line on the board and passes its output on."""
        ...

    def build_copy_command(self, file: Path, to: str) -> "BoardCopy":
        """Return the command that copies a local file to the board."""
        ...


@dataclass(frozen=True, slots=True)
class BoardCopy:
    """A command that copies a file, and the file for its standard input."""

    command: tuple[str, ...]
    stdin: Path | None = None


@dataclass(frozen=True, slots=True)
class Ssh:
    """A host that `ssh` accepts."""

    host: str

    @property
    def name(self) -> str:
        """Return the host."""
        return f"ssh {self.host}"

    @property
    def temporary_folder(self) -> str:
        """Return Linux's folder for temporary files."""
        return "${TMPDIR:-/tmp}"

    @property
    def merges_stderr(self) -> bool:
        """Keep the two streams separate."""
        return False

    def build_shell_command(self, command: str) -> tuple[str, ...]:
        """Never ask for a password: only keys work."""
        return ("ssh", "-T", "-o", "BatchMode=yes", "--", self.host, command)

    def build_copy_command(self, file: Path, to: str) -> BoardCopy:
        """Pipe the file into the board's shell: not every board has scp or sftp."""
        return BoardCopy(self.build_shell_command(f"cat > {shlex.quote(to)}"), file)


@dataclass(frozen=True, slots=True)
class Adb:
    """The device that `adb` uses: the only one, or the one in ANDROID_SERIAL."""

    @property
    def name(self) -> str:
        """Return the command."""
        return "adb"

    @property
    def temporary_folder(self) -> str:
        """Return the folder where Android's shell may run files."""
        return "/data/local/tmp"

    @property
    def merges_stderr(self) -> bool:
        """Merge them, as `exec-out` does."""
        return True

    def build_shell_command(self, command: str) -> tuple[str, ...]:
        """Run it without a terminal, so that output bytes are not changed."""
        return ("adb", "exec-out", command)

    def build_copy_command(self, file: Path, to: str) -> BoardCopy:
        """Push the file with adb."""
        return BoardCopy(("adb", "push", str(file), to))


def select_link(host: str | None, adb: bool) -> BoardLink | None:
    """Return the connection that the options select; None for none.

    Raises:
        UserError: Both options are given, or ssh cannot accept the host (E0601).
        MissingTool: The command is not installed.
    """
    board_link: BoardLink | None = Ssh(host) if host is not None else Adb() if adb else None
    # ssh would parse a leading dash as an option.
    if host is not None and (adb or not _HOST.fullmatch(host) or host.startswith("-")):
        reason = (
            "--ssh and --adb cannot be used together; remove one of them"
            if adb
            else "--ssh needs a host name, such as user@board"
        )
        raise fail("E0601", reason, make_file_span(f"command line: --ssh {host[:80]}"))
    if board_link and not shutil.which(program := board_link.build_shell_command("")[0]):
        raise MissingTool(Tool(program, "reach the board", None, builds=False))
    return board_link


@dataclass(frozen=True, slots=True)
class Board:
    """A temporary folder on a board; `scratch` is a folder on this machine."""

    link: BoardLink
    folder: str
    scratch: Path

    def send(self, name: str, content: bytes, *, executable: bool = False) -> str:
        """Write a file into the board's folder; return its path there."""
        path = f"{self.folder}/{name}"
        local_copy = self.scratch / "sent"
        local_copy.write_bytes(content)
        copy = self.link.build_copy_command(local_copy, path)
        outcome = _run(self.link, self.scratch, copy.command, COMMAND_SECONDS, copy.stdin)
        if outcome.code:
            raise _make_unreachable_error(
                self.link, _get_last_line(outcome.err) or f"{name} could not be copied"
            )
        if executable:
            _run_checked(self.link, self.scratch, f"chmod 700 {shlex.quote(path)}")
        return path

    def fetch(self, name: str) -> bytes:
        """Return the bytes of a file in the board's folder."""
        quoted = shlex.quote(f"{self.folder}/{name}")
        return _run_checked(self.link, self.scratch, f"cat {quoted}").out

    def execute(self, command: Sequence[str], seconds: float) -> ProcessOutcome:
        """Run a program in the board's folder and wait until it ends.

        Raises:
            UserError: The board cannot be reached, or the program takes too long (E0658).
        """
        shell_command = f"cd {shlex.quote(self.folder)} && {shlex.join(command)}"
        if not self.link.merges_stderr:
            return _run_shell(self.link, self.scratch, shell_command, seconds)
        outcome = _run_shell(self.link, self.scratch, f"{shell_command} 2> stderr", seconds)
        return ProcessOutcome(outcome.code, outcome.out, self.fetch("stderr"))


@contextmanager
def open_board(link: BoardLink) -> Iterator[Board]:
    """Yield a fresh folder on a board; it is removed afterwards.

    Raises:
        UserError: The board cannot be reached (E0658).
    """
    with atomic_files.create_scratch_folder() as scratch:
        # `mkdir` fails if the folder exists, so it never contains another user's files.
        mkdir_command = f'umask 077; d="{link.temporary_folder}/tcc-$$"; mkdir "$d" && echo "$d"'
        folder = _run_checked(link, scratch, mkdir_command).out.decode(errors="replace").strip()
        if not re.fullmatch(r"/[\w./-]*/tcc-\d+", folder):
            raise _make_unreachable_error(link, "no temporary folder could be created there")
        try:
            yield Board(link, folder, scratch)
        finally:
            with suppress(UserError):
                _run_shell(link, scratch, f"rm -rf {shlex.quote(folder)}", COMMAND_SECONDS)


def _run_checked(link: BoardLink, scratch: Path, command: str) -> ProcessOutcome:
    """Run a line of the board's shell that must succeed."""
    outcome = _run_shell(link, scratch, command, COMMAND_SECONDS)
    if outcome.code:
        raise _make_unreachable_error(link, _get_last_line(outcome.err) or f"status {outcome.code}")
    return outcome


def _append_status(command: str) -> str:
    """Return a shell line that prints its exit status at the end."""
    return f"({command}); echo {STATUS_MARK}$?"


def _run_shell(link: BoardLink, scratch: Path, command: str, seconds: float) -> ProcessOutcome:
    """Run a line of the board's shell; the exit status is the one that the board printed."""
    outcome = _run(link, scratch, link.build_shell_command(_append_status(command)), seconds)
    out, mark, status = outcome.out.rpartition(STATUS_MARK.encode())
    if not mark or not status.strip().isdigit():
        raise _make_unreachable_error(link, _get_last_line(outcome.err) or "it does not answer")
    return ProcessOutcome(int(status), out, outcome.err)


def _run(
    link: BoardLink,
    scratch: Path,
    command: Sequence[str],
    seconds: float,
    stdin: Path | None = None,
) -> ProcessOutcome:
    try:
        outcome = bounded_process.execute(
            command, scratch, seconds, MAX_FILE_BYTES, stdin=stdin, idle=seconds
        )
        with regular_files.open_file(scratch / "stdout") as file:
            return ProcessOutcome(outcome.code, file.read(MAX_FILE_BYTES + 1), outcome.err)
    except HangsError as error:
        raise _make_unreachable_error(link, f"it {error}") from None
    except OSError as error:
        raise _make_unreachable_error(link, error.strerror or str(error)) from None


def _make_unreachable_error(link: BoardLink, reason: str) -> UserError:
    help = f"check the connection: `{shlex.join(link.build_shell_command('true'))}`"
    return fail(
        "E0658",
        "a command on the board failed",
        make_file_span(link.name),
        label=reason,
        help=help,
    )


def _get_last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1][:160] if lines else ""
