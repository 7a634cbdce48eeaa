"""Detect that memory is short, above all under a limit (`ulimit -v`).

Some libraries end the process when memory is short: an uncaught C++ exception aborts it, OpenBLAS
exits. Under a limit, a command therefore runs in a child process, and the parent explains such an
end.
"""

import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import FrameType
from typing import Any

from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.diagnostics import Diagnostic, make_file_span

SHORTAGE_PHRASES = (
    "MemoryError",
    "bad_alloc",
    "bad allocation",
    "allocate memory",
    "llocation failed",
    "failed to map segment",
    "can't start new thread",
    "out of memory",
    "OutOfMemory",
    "Unable to reserve",
)
"""Phrases in messages of libraries and programs when memory is short."""
MESSAGE = "there is not enough memory for this"
PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl: send a signal to a process when its parent ends."""


def read_limit() -> int | None:
    """Return the limit of this process's address space in bytes; None if unlimited."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def is_shortage(text: str) -> bool:
    """Whether a message of a library or program reports a memory shortage."""
    return any(phrase in text for phrase in SHORTAGE_PHRASES)


def is_caused_by_shortage(error: BaseException | None) -> bool:
    """Whether an error reports a memory shortage, or was caused by one that does."""
    # Under a limit, a package may report a library that fails to load as missing.
    if read_limit() is not None and type(error) is ImportError:
        return True
    while error is not None:
        if isinstance(error, MemoryError) or is_shortage(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def make_shortage_error(cause: BaseException | None = None) -> MachineError:
    """Return the error for a memory shortage, with the limit and the cause."""
    max_bytes = read_limit()
    location = "memory"
    if max_bytes is not None:
        location += f": {max_bytes / (1 << 20):,.0f} MiB, by `ulimit -v`"
    help = (
        "close other programs, or use a machine with more memory"
        if max_bytes is None
        else "raise the limit: `ulimit -v unlimited`"
    )
    notes = (f"{type(cause).__name__}: {cause}".splitlines()[0],) if cause and str(cause) else ()
    return MachineError(
        Diagnostic("E1402", MESSAGE, make_file_span(location), notes=notes, help=help)
    )


def run_in_child(work: Callable[[], object]) -> int:
    """Run work that ends with `sys.exit` in a child process; return its exit code.

    Signals that end this process are forwarded to the child.

    Raises:
        MachineError: A library ended the child (E1402).
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if not child:
        os.close(reader)
        _follow(parent)
        _run_child(work, writer)
    os.close(writer)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _make_forwarder(child))
    with os.fdopen(reader, "rb") as pipe:
        exit_byte = pipe.read(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if exit_byte:
        return exit_byte[0]
    if status == -signal.SIGKILL:
        os.kill(os.getpid(), signal.SIGKILL)  # so that this process's parent sees the same end
    if status in (-signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT):
        return 128 - status
    raise make_shortage_error()


def _make_forwarder(child: int) -> Callable[[int, FrameType | None], None]:
    def send_signal(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    return send_signal


def _follow(parent: int) -> None:
    """Have this process end when its parent ends, even if the parent is killed."""
    import ctypes  # only needed under a limit

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _run_child(work: Callable[[], object], writer: int) -> None:
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        if is_caused_by_shortage(error):
            os._exit(1)  # without a message: the parent prints it
        raise
    os.write(writer, bytes([code & 0xFF]))
    sys.exit(code)


def release_freed_memory() -> None:
    """Return freed memory to the system, if the C library can (`malloc_trim` of glibc).

    glibc keeps freed memory per thread, so that the peaks of several threads add up.
    """
    if trim := _find_trim():
        trim(0)


@cache
def _find_trim() -> Any:
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # not Linux
        return None


@contextmanager
def disable_collection() -> Iterator[None]:
    """Disable the search for reference cycles.

    It walks the containers of large values again and again: a fifth of the time to read a large
    spec, and more for a pickle in a process with many other objects.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
