"""A command of this program in a process of its own, which ends with the one that began it."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

PROGRAM = (
    "from tcc.compiler.support import child_command; child_command.attend(); "
    "from tcc.compiler.entry import main; main()"
)
ONE_THREAD = MappingProxyType(
    dict.fromkeys(("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
)
"""What the environment of a process says that is one of as many as there are cores."""
_AS_HERE: Mapping[str, str] = MappingProxyType({})
_LIVE: set["subprocess.Popen[bytes]"] = set()
"""Those that run; a thread waits for each."""


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a command ended (negative: by that signal), and what it said."""

    code: int
    out: str
    err: str


def run(words: Sequence[str], more: Mapping[str, str] = _AS_HERE) -> ChildEnd:
    """Run a command to its end; when this process ends in any way, so does that one.

    Args:
        words: Those after `tcc`.
        more: What its environment has more than this process's.
    """
    # A pipe that nobody writes into: it ends when this process does, even by kill -9. No other
    # child holds its end, since Python hands on no descriptors unasked.
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, *words],
        stdin=reader,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | more,
    )
    _LIVE.add(process)
    try:
        os.close(reader)
        out, err = (each.decode(errors="replace") for each in process.communicate())
    finally:
        process.kill()
        process.wait()
        _LIVE.discard(process)
        os.close(writer)
    return ChildEnd(process.returncode, out, err)


def end_all() -> None:
    """End all that run, so that nobody waits for them."""
    for process in list(_LIVE):
        process.kill()


def attend() -> None:
    """End this process as soon as the one that ran it has ended."""
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
