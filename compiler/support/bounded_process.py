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

IDLE_SECONDS = 20
"""Seconds after which a program that uses no processor is taken to wait for what never comes."""
FIRST_POLL_SECONDS = 0.001
"""Seconds until a program is looked at for the first time; then it is at ever longer intervals."""
_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
MAX_OUTPUT_BYTES = 1 << 20
"""Most bytes that a program may print."""


class HangsError(Exception):
    """A program was ended, as it took too long; says how long."""


@dataclass(frozen=True, slots=True)
class ProcessOutcome:
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
    max_file_bytes: int,
    *,
    stdin: Path | None = None,
    idle: float | None = None,
) -> ProcessOutcome:
    """Run a program, and all that it starts, to its end.

    Args:
        command: The program and its arguments.
        folder: A scratch folder.
        seconds: How long it may take.
        max_file_bytes: How many bytes its largest file may have.
        stdin: A file that it reads.
        idle: In place of `IDLE_SECONDS`, where it waits for another machine.

    Raises:
        HangsError: It takes longer, or does nothing for so long.
        OSError: It cannot be started, or the disk of the folder is full.
    """
    # Into files: the system bounds their size, and nobody has to read while waiting.
    out, err = folder / "stdout", folder / "stderr"
    with (
        out.open("wb") as to_out,
        err.open("wb") as to_err,
        Path(stdin or os.devnull).open("rb") as stdin_file,
    ):
        process = subprocess.Popen(
            command,
            stdin=stdin_file,
            stdout=to_out,
            stderr=to_err,
            # What changes how programs are loaded, or how QEMU runs them, is not passed on.
            env={k: v for k, v in os.environ.items() if not k.startswith(("LD_", "QEMU_"))},
            # In a group of its own, which can be killed with all that it started.
            start_new_session=True,
        )
        try:
            _limit(process.pid, max(max_file_bytes, MAX_OUTPUT_BYTES) + 1)
            code, peak = _wait_for_exit(process, seconds, idle or IDLE_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        atomic_files.check_disk_space(folder)
    return ProcessOutcome(code, _read_output(out), _read_output(err), peak)


def _limit(pid: int, max_file_bytes: int) -> None:
    """Have the system end the program by SIGXFSZ where a file of its gets too large."""
    with suppress(OSError, AttributeError):  # it has ended already, or this is no Linux
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))


def _wait_for_exit(
    process: "subprocess.Popen[bytes]", seconds: float, idle: float
) -> tuple[int, int]:
    """Return the exit code, and the most memory that was seen."""
    start = active_since = time.monotonic()
    cpu_time, peak, pause = "", 0, FIRST_POLL_SECONDS
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(pause), peak
        pause = min(2 * pause, 1)
        peak = max(peak, _read_peak_memory(process.pid))
        now, previous_used = time.monotonic(), cpu_time
        cpu_time = _read_cpu_time(process.pid)
        if cpu_time != previous_used or not cpu_time:
            active_since = now
        if now - start > seconds:
            raise HangsError(f"did not end in {seconds:.0f} s")
        if now - active_since > idle:
            raise HangsError(f"did nothing for {idle:.0f} s")


def _read_peak_memory(pid: int) -> int:
    """Return the most memory that a program had, in bytes, as Linux tells it."""
    with suppress(OSError):
        peak_match = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
        return int(peak_match[1]) * 1024 if peak_match else 0
    return 0


def _read_cpu_time(pid: int) -> str:
    """Return the time of processor that a program has used, as Linux tells it."""
    with suppress(OSError):
        # The name stands in brackets and may hold anything, brackets too. Fields 14 to 17 are the
        # time of the program and of its children, user and system: proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return " ".join(fields[11:15])
    return ""


def _read_output(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_OUTPUT_BYTES + 1)
