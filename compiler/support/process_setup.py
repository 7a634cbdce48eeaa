"""Set up a process before it works: signals, standard streams, and no telemetry.

Signals that end a process unwind it, so that no partial files stay. The exit code is then 128 plus
the signal's number, as in a shell. It stays so even if unwinding raises another exception, as
native code does that is interrupted during import.
"""

import io
import os
import signal
import sys
import threading
from types import FrameType, MappingProxyType
from typing import Any, NoReturn, TextIO

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 10
"""Seconds after which a process is ended if native code prevents unwinding."""


class _ReceivedSignals:
    """The exit codes of the signals that were received."""

    ending: int | None = None
    interrupt: int | None = None


def set_single_blas_thread() -> None:
    """Let numpy add in one order on any number of processors: its BLAS gets one thread.

    Call it before anything imports numpy. It does not affect threads that tcc itself starts.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def catch_signals() -> None:
    """Have signals that end the process unwind it from now on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _handle_interrupt)
    for number in ENDING_SIGNALS:
        # A signal that is already ignored (nohup) stays ignored.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _handle_ending_signal)


def get_exit_code(*, failed: bool) -> int | None:
    """Return the exit code of the signal that was received; None if there was none.

    Args:
        failed: Whether an error ended the work. Otherwise Ctrl-C does not count: some commands end
            normally with it.
    """
    return _ReceivedSignals.ending or (_ReceivedSignals.interrupt if failed else None)


def ignore_signals() -> None:
    """Ignore signals once the work is done, so that they do not change the exit code.

    The interpreter removes handlers before it has ended.
    """
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is _handle_ending_signal:
            signal.signal(number, signal.SIG_IGN)


def _handle_ending_signal(number: int, _: FrameType | None) -> NoReturn:
    # A second signal, as impatient users send, must not interrupt the cleanup.
    signal.signal(number, signal.SIG_IGN)
    _ReceivedSignals.ending = 128 + number
    fallback = threading.Timer(GRACE_SECONDS, os._exit, (_ReceivedSignals.ending,))
    fallback.daemon = True
    fallback.start()
    sys.exit(_ReceivedSignals.ending)


def _handle_interrupt(number: int, _: FrameType | None) -> NoReturn:
    _ReceivedSignals.interrupt = 128 + number
    raise KeyboardInterrupt


class _Descriptor(io.FileIO):
    """A file descriptor; after its reader has closed it, as `head` does, output is dropped."""

    def write(self, content: Any) -> int:
        """Write bytes; return their number."""
        try:
            return super().write(content)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(content)


def prepare_streams() -> None:
    """Keep a closed pipe or an unencodable character from ending a command."""
    sys.stdout = _make_robust_stream(sys.stdout)
    sys.stderr = _make_robust_stream(sys.stderr)


def _make_robust_stream(stream: TextIO) -> TextIO:
    # None if the descriptor is closed; test doubles are not files.
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    buffered = io.BufferedWriter(_Descriptor(stream.fileno(), "w", closefd=False))
    # File names may not be text, and a terminal may not be UTF-8.
    return io.TextIOWrapper(
        buffered,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


TELEMETRY_SWITCHES = MappingProxyType({"ORT_DISABLE_TELEMETRY": "1", "NNCF_CI": "1"})
"""Variables that ONNX Runtime, and NNCF in `tools/bench`, read when they are imported.

Child processes inherit them.
"""


def disable_telemetry() -> None:
    """Set the variables for this process and its children, overriding earlier values."""
    os.environ.update(TELEMETRY_SWITCHES)
