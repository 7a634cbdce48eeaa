"""Running another program: bounded in what it says and writes, and ended where it hangs."""

import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.support import atomic_files

IDLE = 20
"""Seconds after which a program that uses no processor is taken to wait for what never comes."""
FIRST_LOOK = 0.001
"""Seconds until a program is looked at for the first time; then it is at ever longer intervals."""
_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
SAID = 1 << 20
"""Most bytes that a program may print."""


class HangsError(Exception):
    """A program was ended, as it took too long; says how long."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended (negative: by that signal), and what it printed.

    `peak` is the most memory that it was seen to have, in bytes; 0 where that was not seen.
    """

    code: int
    out: bytes
    err: bytes
    peak: int = 0


def execute(
    command: Sequence[str],
    folder: Path,
    seconds: float,
    written: int,
    *,
    stdin: Path | None = None,
    idle: float | None = None,
) -> Ended:
    """Run a program, and all that it starts, to its end.

    Args:
        command: The program and its arguments.
        folder: A scratch folder.
        seconds: How long it may take.
        written: How many bytes its largest file may have.
        stdin: A file that it reads.
        idle: In place of `IDLE`, where it waits for another machine.

    Raises:
        HangsError: It takes longer, or does nothing for so long.
        OSError: It cannot be started, or the disk of the folder is full.
    """
    # Into files: the system bounds their size, and nobody has to read while waiting.
    out, err = folder / "stdout", folder / "stderr"
    with (
        out.open("wb") as to_out,
        err.open("wb") as to_err,
        Path(stdin or os.devnull).open("rb") as given,
    ):
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=to_out,
            stderr=to_err,
            # What changes how programs are loaded, or how QEMU runs them, is not passed on.
            env={k: v for k, v in os.environ.items() if not k.startswith(("LD_", "QEMU_"))},
            # In a group of its own, which can be killed with all that it started.
            start_new_session=True,
        )
        try:
            _limit(process.pid, max(written, SAID) + 1)
            code, peak = _awaited(process, seconds, idle or IDLE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        atomic_files.check_room(folder)
    return Ended(code, _start(out), _start(err), peak)


def _limit(number: int, written: int) -> None:
    """Have the system end the program by SIGXFSZ where a file of its gets too large."""
    with suppress(OSError, AttributeError):  # it has ended already, or this is no Linux
        resource.prlimit(number, resource.RLIMIT_FSIZE, (written, written))


def _awaited(process: "subprocess.Popen[bytes]", seconds: float, idle: float) -> tuple[int, int]:
    """Return the exit code, and the most memory that was seen."""
    start = since = time.monotonic()
    used, peak, pause = "", 0, FIRST_LOOK
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(pause), peak
        pause = min(2 * pause, 1)
        peak = max(peak, _memory(process.pid))
        now, before = time.monotonic(), used
        used = _processor(process.pid)
        if used != before or not used:
            since = now
        if now - start > seconds:
            raise HangsError(f"did not end in {seconds:.0f} s")
        if now - since > idle:
            raise HangsError(f"did nothing for {idle:.0f} s")


def _memory(number: int) -> int:
    """Return the most memory that a program had, in bytes, as Linux tells it."""
    with suppress(OSError):
        found = _PEAK.search(Path(f"/proc/{number}/status").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0


def _processor(number: int) -> str:
    """Return the time of processor that a program has used, as Linux tells it."""
    with suppress(OSError):
        # The name stands in brackets and may hold anything, brackets too. Fields 14 to 17 are the
        # time of the program and of its children, user and system: proc(5).
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return " ".join(fields[11:15])
    return ""


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SAID + 1)
