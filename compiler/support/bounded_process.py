"""Run another program with limits on its time, its output and its files."""

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
"""Seconds without processor time after which a program counts as hanging."""
FIRST_POLL_SECONDS = 0.001
"""Seconds before the first poll; the interval doubles up to one second."""
_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
MAX_OUTPUT_BYTES = 1 << 20
"""Bytes of output that are read."""


class HangsError(Exception):
    """A program was stopped because it took too long; the message has the time."""


@dataclass(frozen=True, slots=True)
class ProcessOutcome:
    """Exit code (negative: the signal) and output of a program.

    `peak` is the highest memory use that was measured, in bytes; 0 if none was measured.
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
    """Run a program, with all processes that it starts, until it ends.

    Args:
        command: The program and its arguments.
        folder: A scratch folder.
        seconds: Time limit.
        max_file_bytes: Size limit for each file that it writes.
        stdin: A file for its standard input.
        idle: Replaces `IDLE_SECONDS`, for programs that wait for another machine.

    Raises:
        HangsError: It takes longer, or is idle for too long.
        OSError: It cannot be started, or the disk of the folder is full.
    """
    # Output goes to files: the system limits their size, and nobody has to read while waiting.
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
            # Variables that change how programs are loaded, or how QEMU runs them, are removed.
            env={k: v for k, v in os.environ.items() if not k.startswith(("LD_", "QEMU_"))},
            # A process group, which can be killed with everything that it started.
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
    """Have the system stop the program with SIGXFSZ if one of its files gets too large."""
    with suppress(OSError, AttributeError):  # it has ended already, or the system is not Linux
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))


def _wait_for_exit(
    process: "subprocess.Popen[bytes]", seconds: float, idle: float
) -> tuple[int, int]:
    """Return the exit code and the measured peak of memory."""
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
            raise HangsError(f"did not end within {seconds:.0f} s")
        if now - active_since > idle:
            raise HangsError(f"used no processor time for {idle:.0f} s")


def _read_peak_memory(pid: int) -> int:
    """Return a program's peak memory in bytes, from Linux's /proc; 0 if unknown."""
    with suppress(OSError):
        peak_match = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
        return int(peak_match[1]) * 1024 if peak_match else 0
    return 0


def _read_cpu_time(pid: int) -> str:
    """Return the processor time that a program has used, from Linux's /proc."""
    with suppress(OSError):
        # The name is in brackets and may contain anything, including brackets. Fields 14 to 17
        # are user and system time of the program and of its children: proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return " ".join(fields[11:15])
    return ""


def _read_output(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_OUTPUT_BYTES + 1)
