"""Run one case in a forked process: measure its output, exit and resource use."""

import contextlib
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from case import Case, Outcome

PATIENCE = 300
"""Seconds of elapsed time after which a case is killed.

The limit is high, because other processes may use the CPU. A command's own limit is in CPU seconds.
"""
STOPS = {signal.SIGINT, signal.SIGTERM}
"""The signals that stop the fuzzer."""


def run(case: Case, folder: Path) -> Outcome:
    """Run a case in an empty folder; return its outcome."""
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if case.prepare:
        case.prepare(folder)
    out, err = folder.with_suffix(".out"), folder.with_suffix(".err")
    baseline_file = folder.with_suffix(".before")
    start = time.monotonic()
    # Block the stop signals until the child's process identifier is known and it can be killed.
    signal_mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    pid = os.fork()
    if not pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)
        # A fork has less resident memory than its parent: mapped files return when they are
        # touched.
        baseline_file.write_text(str(_measure_resident()))
        run_command(case, folder, out, err)
    try:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)
        if case.meanwhile:
            case.meanwhile(pid, folder)
        code, used = _wait(pid)
    except KeyboardInterrupt:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    wall = time.monotonic() - start
    seconds = used.ru_utime + used.ru_stime
    peak = max(0, used.ru_maxrss * 1024 - int(baseline_file.read_text()))
    texts = [path.read_text(errors="replace") for path in (out, err)]
    return Outcome(code, texts[0], texts[1], seconds, wall, peak)


def _wait(pid: int) -> tuple[int, resource.struct_rusage]:
    end = time.monotonic() + PATIENCE
    while True:
        ended_pid, status, used = os.wait4(pid, os.WNOHANG)
        if ended_pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # kill processes that it left running
            return os.waitstatus_to_exitcode(status), used
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            end = float("inf")
        time.sleep(0.002)


def run_command(case: Case, folder: Path, out: Path, err: Path) -> NoReturn:
    """Run a case's command in this forked process, and exit."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a case may kill it with SIGTERM
        os.setpgid(0, 0)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), number)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        sys.argv = ["tcc", *case.arguments]
        from tcc.compiler.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # exit below in any case
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _measure_resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
