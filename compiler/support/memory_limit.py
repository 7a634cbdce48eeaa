"""A limit of memory (`ulimit -v`), and what says that too little of it is left.

Some libraries end the process where memory is short: an exception of C++ that nobody catches
aborts it, OpenBLAS exits. Under a limit a command therefore runs in a child of its process, which
says what such an end means.
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
"""What libraries and programs say where memory is short."""
MESSAGE = "there is not enough memory for this"
PARENT_DEATH_SIGNAL = 1
"""What of `prctl` sends a signal to a process whose parent ends: PR_SET_PDEATHSIG of Linux."""


def read_limit() -> int | None:
    """Return how many bytes of address space this process may have; None where any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def is_shortage(text: str) -> bool:
    """Whether a library's or a program's words say that memory is short."""
    return any(phrase in text for phrase in SHORTAGE_PHRASES)


def is_caused_by_shortage(error: BaseException | None) -> bool:
    """Whether an error is of too little memory, or was raised because of one that is."""
    # Under a limit a package may take its own library that does not load for one that is not here.
    if read_limit() is not None and type(error) is ImportError:
        return True
    while error is not None:
        if isinstance(error, MemoryError) or is_shortage(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def make_shortage_error(cause: BaseException | None = None) -> MachineError:
    """Return the error that says that memory is short: how much there may be, and what failed."""
    max_bytes = read_limit()
    location = "memory"
    if max_bytes is not None:
        location += f": {max_bytes / (1 << 20):,.0f} MiB, by `ulimit -v`"
    help = "free some" if max_bytes is None else "let the process have more: `ulimit -v unlimited`"
    notes = (f"{type(cause).__name__}: {cause}".splitlines()[0],) if cause and str(cause) else ()
    return MachineError(
        Diagnostic("E1402", MESSAGE, make_file_span(location), notes=notes, help=help)
    )


def run_in_child(work: Callable[[], object]) -> int:
    """Do work that ends by `sys.exit` in a child of this process; return its exit code.

    Signals that end this process end the child.

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
        os.kill(os.getpid(), signal.SIGKILL)  # whoever waits for this process hears the same
    if status in (-signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT):
        return 128 - status
    raise make_shortage_error()


def _make_forwarder(child: int) -> Callable[[int, FrameType | None], None]:
    def send_signal(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    return send_signal


def _follow(parent: int) -> None:
    """Have this process end when the one that began it does, even if that is killed."""
    import ctypes  # under a limit alone

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
            os._exit(1)  # without a word, which the parent has
        raise
    os.write(writer, bytes([code & 0xFF]))
    sys.exit(code)


def release_freed_memory() -> None:
    """Give back what is free, where the C library can (`malloc_trim` of glibc).

    It keeps what each thread has freed for that thread, so that the peaks of several add up.
    """
    if trim := _find_trim():
        trim(0)


@cache
def _find_trim() -> Any:
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # another system
        return None


@contextmanager
def disable_collection() -> Iterator[None]:
    """Look for no cycles meanwhile.

    Millions of containers of one value are walked again and again otherwise: of reading a large
    spec it takes a fifth, and of a pickle more in a process that holds much else.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
