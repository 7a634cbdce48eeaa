"""A board that programs are copied to and run on: over SSH, or by Android's adb.

Both are the user's own commands, with the user's own keys and settings. What is copied lies in a
fresh folder of the board, which is gone afterwards.
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
"""How long a command may take that only copies or asks."""
MAX_FILE_BYTES = 1 << 28
"""Bytes of the largest file that is brought back."""
STATUS_MARK = "tcc-status:"
"""What stands before the exit status: old versions of adb do not pass it on."""
_HOST = re.compile(r"[A-Za-z0-9_.@:%\[\]-]+")


class BoardLink(Protocol):
    """A way to a board: one command each to run something there and to copy a file."""

    @property
    def name(self) -> str:
        """What the way is called in messages."""
        ...

    @property
    def temporary_folder(self) -> str:
        """The board's folder for files that may be run."""
        ...

    @property
    def merges_stderr(self) -> bool:
        """Whether standard error comes with standard output."""
        ...

    def build_shell_command(self, command: str) -> tuple[str, ...]:
        """Return what runs a line of the board's shell, and gives what it prints as it is."""
        ...

    def build_copy_command(self, file: Path, to: str) -> "BoardCopy":
        """Return what copies a file of this machine to the board."""
        ...


@dataclass(frozen=True, slots=True)
class BoardCopy:
    """A command that copies a file, and what it is given on standard input."""

    command: tuple[str, ...]
    stdin: Path | None = None


@dataclass(frozen=True, slots=True)
class Ssh:
    """A host as `ssh` takes it."""

    host: str

    @property
    def name(self) -> str:
        """Return the host."""
        return f"ssh {self.host}"

    @property
    def temporary_folder(self) -> str:
        """Return where Linux has temporary files."""
        return "${TMPDIR:-/tmp}"

    @property
    def merges_stderr(self) -> bool:
        """Keep the two apart."""
        return False

    def build_shell_command(self, command: str) -> tuple[str, ...]:
        """Ask for no password: keys alone are taken."""
        return ("ssh", "-T", "-o", "BatchMode=yes", "--", self.host, command)

    def build_copy_command(self, file: Path, to: str) -> BoardCopy:
        """Have the board's shell read it: not every board has scp or sftp."""
        return BoardCopy(self.build_shell_command(f"cat > {shlex.quote(to)}"), file)


@dataclass(frozen=True, slots=True)
class Adb:
    """The device that `adb` takes: the only one, or that of ANDROID_SERIAL."""

    @property
    def name(self) -> str:
        """Return the command."""
        return "adb"

    @property
    def temporary_folder(self) -> str:
        """Return where Android lets its shell run files."""
        return "/data/local/tmp"

    @property
    def merges_stderr(self) -> bool:
        """Merge them, as `exec-out` does."""
        return True

    def build_shell_command(self, command: str) -> tuple[str, ...]:
        """Run it without a terminal, so that bytes stay as they are."""
        return ("adb", "exec-out", command)

    def build_copy_command(self, file: Path, to: str) -> BoardCopy:
        """Push it."""
        return BoardCopy(("adb", "push", str(file), to))


def select_link(host: str | None, adb: bool) -> BoardLink | None:
    """Return the way that options name, None for none.

    Raises:
        UserError: Both are named, or ssh could not take such a host (E0601).
        MissingTool: Its command is not here.
    """
    board_link: BoardLink | None = Ssh(host) if host is not None else Adb() if adb else None
    # With a dash first ssh would take it for an option.
    if host is not None and (adb or not _HOST.fullmatch(host) or host.startswith("-")):
        reason = "--ssh and --adb are two ways, take one" if adb else "--ssh takes a host"
        raise fail("E0601", reason, make_file_span(f"command line: --ssh {host[:80]}"))
    if board_link and not shutil.which(program := board_link.build_shell_command("")[0]):
        raise MissingTool(Tool(program, "reach the board", None, builds=False))
    return board_link


@dataclass(frozen=True, slots=True)
class Board:
    """A folder of a board, while it is there; `scratch` is one of this machine."""

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
                self.link, _get_last_line(outcome.err) or f"{name} cannot be copied"
            )
        if executable:
            _run_checked(self.link, self.scratch, f"chmod 700 {shlex.quote(path)}")
        return path

    def fetch(self, name: str) -> bytes:
        """Return the bytes of a file in the board's folder."""
        quoted = shlex.quote(f"{self.folder}/{name}")
        return _run_checked(self.link, self.scratch, f"cat {quoted}").out

    def execute(self, command: Sequence[str], seconds: float) -> ProcessOutcome:
        """Run a program in the board's folder to its end.

        Raises:
            UserError: The board cannot be reached, or it takes too long (E0658).
        """
        shell_command = f"cd {shlex.quote(self.folder)} && {shlex.join(command)}"
        if not self.link.merges_stderr:
            return _run_shell(self.link, self.scratch, shell_command, seconds)
        outcome = _run_shell(self.link, self.scratch, f"{shell_command} 2> stderr", seconds)
        return ProcessOutcome(outcome.code, outcome.out, self.fetch("stderr"))


@contextmanager
def open_board(link: BoardLink) -> Iterator[Board]:
    """Give a fresh folder of a board; it is gone afterwards.

    Raises:
        UserError: The board cannot be reached (E0658).
    """
    with atomic_files.create_scratch_folder() as scratch:
        # `mkdir` refuses a folder that is there, so that nobody else's files lie in it.
        mkdir_command = f'umask 077; d="{link.temporary_folder}/tcc-$$"; mkdir "$d" && echo "$d"'
        folder = _run_checked(link, scratch, mkdir_command).out.decode(errors="replace").strip()
        if not re.fullmatch(r"/[\w./-]*/tcc-\d+", folder):
            raise _make_unreachable_error(link, "it names no folder for what is copied")
        try:
            yield Board(link, folder, scratch)
        finally:
            with suppress(UserError):
                _run_shell(link, scratch, f"rm -rf {shlex.quote(folder)}", COMMAND_SECONDS)


def _run_checked(link: BoardLink, scratch: Path, command: str) -> ProcessOutcome:
    """Run a line of the board's shell that has to succeed."""
    outcome = _run_shell(link, scratch, command, COMMAND_SECONDS)
    if outcome.code:
        raise _make_unreachable_error(link, _get_last_line(outcome.err) or f"status {outcome.code}")
    return outcome


def _append_status(command: str) -> str:
    """Return a line that ends with its exit status in words."""
    return f"({command}); echo {STATUS_MARK}$?"


def _run_shell(link: BoardLink, scratch: Path, command: str, seconds: float) -> ProcessOutcome:
    """Run a line of the board's shell; the exit status is the one that the board told."""
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
    help = f"try `{shlex.join(link.build_shell_command('true'))}`"
    return fail(
        "E0658",
        "the board does not do what it is asked",
        make_file_span(link.name),
        label=reason,
        help=help,
    )


def _get_last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1][:160] if lines else ""
