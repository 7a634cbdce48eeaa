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
from tcc.compiler.support.bounded_process import Ended, HangsError
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.external_tools import MissingTool, Tool

SECONDS = 120
"""How long a command may take that only copies or asks."""
MOST = 1 << 28
"""Bytes of the largest file that is brought back."""
STATUS = "tcc-status:"
"""What stands before the exit status: old versions of adb do not pass it on."""
_HOST = re.compile(r"[A-Za-z0-9_.@:%\[\]-]+")


class BoardLink(Protocol):
    """A way to a board: one command each to run something there and to copy a file."""

    @property
    def name(self) -> str:
        """What the way is called in messages."""
        ...

    @property
    def temporary(self) -> str:
        """The board's folder for files that may be run."""
        ...

    @property
    def merges(self) -> bool:
        """Whether standard error comes with standard output."""
        ...

    def shell(self, command: str) -> tuple[str, ...]:
        """Return what runs a line of the board's shell, and gives what it prints as it is."""
        ...

    def copy(self, file: Path, to: str) -> "BoardCopy":
        """Return what copies a file of this machine to the board."""
        ...


@dataclass(frozen=True, slots=True)
class BoardCopy:
    """A command that copies a file, and what it is given on standard input."""

    words: tuple[str, ...]
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
    def temporary(self) -> str:
        """Return where Linux has temporary files."""
        return "${TMPDIR:-/tmp}"

    @property
    def merges(self) -> bool:
        """Keep the two apart."""
        return False

    def shell(self, command: str) -> tuple[str, ...]:
        """Ask for no password: keys alone are taken."""
        return ("ssh", "-T", "-o", "BatchMode=yes", "--", self.host, command)

    def copy(self, file: Path, to: str) -> BoardCopy:
        """Have the board's shell read it: not every board has scp or sftp."""
        return BoardCopy(self.shell(f"cat > {shlex.quote(to)}"), file)


@dataclass(frozen=True, slots=True)
class Adb:
    """The device that `adb` takes: the only one, or that of ANDROID_SERIAL."""

    @property
    def name(self) -> str:
        """Return the command."""
        return "adb"

    @property
    def temporary(self) -> str:
        """Return where Android lets its shell run files."""
        return "/data/local/tmp"

    @property
    def merges(self) -> bool:
        """Merge them, as `exec-out` does."""
        return True

    def shell(self, command: str) -> tuple[str, ...]:
        """Run it without a terminal, so that bytes stay as they are."""
        return ("adb", "exec-out", command)

    def copy(self, file: Path, to: str) -> BoardCopy:
        """Push it."""
        return BoardCopy(("adb", "push", str(file), to))


def link(host: str | None, adb: bool) -> BoardLink | None:
    """Return the way that options name, None for none.

    Raises:
        UserError: Both are named, or ssh could not take such a host (E0601).
        MissingTool: Its command is not here.
    """
    found: BoardLink | None = Ssh(host) if host is not None else Adb() if adb else None
    # With a dash first ssh would take it for an option.
    if host is not None and (adb or not _HOST.fullmatch(host) or host.startswith("-")):
        why = "--ssh and --adb are two ways, take one" if adb else "--ssh takes a host"
        raise fail("E0601", why, whole_file(f"command line: --ssh {host[:80]}"))
    if found and not shutil.which(program := found.shell("")[0]):
        raise MissingTool(Tool(program, "reach the board", None, builds=False))
    return found


@dataclass(frozen=True, slots=True)
class Board:
    """A folder of a board, while it is there; `scratch` is one of this machine."""

    way: BoardLink
    folder: str
    scratch: Path

    def put(self, name: str, data: bytes, *, executable: bool = False) -> str:
        """Write a file into the board's folder; return its path there."""
        path = f"{self.folder}/{name}"
        kept = self.scratch / "sent"
        kept.write_bytes(data)
        copy = self.way.copy(kept, path)
        ended = _run(self.way, self.scratch, copy.words, SECONDS, copy.stdin)
        if ended.code:
            raise _unreached(self.way, _last(ended.err) or f"{name} cannot be copied")
        if executable:
            _done(self.way, self.scratch, f"chmod 700 {shlex.quote(path)}")
        return path

    def get(self, name: str) -> bytes:
        """Return the bytes of a file in the board's folder."""
        quoted = shlex.quote(f"{self.folder}/{name}")
        return _done(self.way, self.scratch, f"cat {quoted}").out

    def execute(self, words: Sequence[str], seconds: float) -> Ended:
        """Run a program in the board's folder to its end.

        Raises:
            UserError: The board cannot be reached, or it takes too long (E0658).
        """
        inner = f"cd {shlex.quote(self.folder)} && {shlex.join(words)}"
        if not self.way.merges:
            return _asked(self.way, self.scratch, inner, seconds)
        ended = _asked(self.way, self.scratch, f"{inner} 2> stderr", seconds)
        return Ended(ended.code, ended.out, self.get("stderr"))


@contextmanager
def reached(way: BoardLink) -> Iterator[Board]:
    """Give a fresh folder of a board; it is gone afterwards.

    Raises:
        UserError: The board cannot be reached (E0658).
    """
    with atomic_files.scratch_folder() as scratch:
        # `mkdir` refuses a folder that is there, so that nobody else's files lie in it.
        asked = f'umask 077; d="{way.temporary}/tcc-$$"; mkdir "$d" && echo "$d"'
        folder = _done(way, scratch, asked).out.decode(errors="replace").strip()
        if not re.fullmatch(r"/[\w./-]*/tcc-\d+", folder):
            raise _unreached(way, "it names no folder for what is copied")
        try:
            yield Board(way, folder, scratch)
        finally:
            with suppress(UserError):
                _asked(way, scratch, f"rm -rf {shlex.quote(folder)}", SECONDS)


def _done(way: BoardLink, scratch: Path, command: str) -> Ended:
    """Run a line of the board's shell that has to succeed."""
    ended = _asked(way, scratch, command, SECONDS)
    if ended.code:
        raise _unreached(way, _last(ended.err) or f"status {ended.code}")
    return ended


def _told(command: str) -> str:
    """Return a line that ends with its exit status in words."""
    return f"({command}); echo {STATUS}$?"


def _asked(way: BoardLink, scratch: Path, command: str, seconds: float) -> Ended:
    """Run a line of the board's shell; the exit status is the one that the board told."""
    ended = _run(way, scratch, way.shell(_told(command)), seconds)
    out, mark, status = ended.out.rpartition(STATUS.encode())
    if not mark or not status.strip().isdigit():
        raise _unreached(way, _last(ended.err) or "it does not answer")
    return Ended(int(status), out, ended.err)


def _run(
    way: BoardLink, scratch: Path, words: Sequence[str], seconds: float, stdin: Path | None = None
) -> Ended:
    try:
        ended = bounded_process.execute(words, scratch, seconds, MOST, stdin=stdin, idle=seconds)
        with regular_files.opened(scratch / "stdout") as file:
            return Ended(ended.code, file.read(MOST + 1), ended.err)
    except HangsError as error:
        raise _unreached(way, f"it {error}") from None
    except OSError as error:
        raise _unreached(way, error.strerror or str(error)) from None


def _unreached(way: BoardLink, why: str) -> UserError:
    help = f"try `{shlex.join(way.shell('true'))}`"
    return fail(
        "E0658",
        "the board does not do what it is asked",
        whole_file(way.name),
        label=why,
        help=help,
    )


def _last(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][:160] if lines else ""
