"""What a process does before it works: signals, standard streams, and no reports of its use.

Signals that end a process unwind it, so that nothing half-written stays. Its exit code is then 128
and the signal's number, as a shell has it, whatever the unwinding becomes on its way: native code
that is interrupted while it is imported turns it into another exception.
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
"""Seconds after which a process ends that native code keeps from unwinding."""


class _ReceivedSignals:
    """The exit codes of the signals that came."""

    ending: int | None = None
    interrupt: int | None = None


def set_single_blas_thread() -> None:
    """Let numpy add in one order, whatever the number of processors: its BLAS gets one thread.

    To be called before anything imports numpy. Threads of tcc's commands are their own.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def catch_signals() -> None:
    """Have ending signals unwind this process, from now on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _handle_interrupt)
    for number in ENDING_SIGNALS:
        # Whoever has us ignore them (nohup) means it.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _handle_ending_signal)


def get_exit_code(*, failed: bool) -> int | None:
    """Return the exit code of the signal that came; None where none did.

    Args:
        failed: Whether an error ended the work. Else Ctrl-C does not count: some commands end well
            by it.
    """
    return _ReceivedSignals.ending or (_ReceivedSignals.interrupt if failed else None)


def ignore_signals() -> None:
    """Let no signal change how a process ends whose work is done.

    The interpreter takes handlers away before it has ended.
    """
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is _handle_ending_signal:
            signal.signal(number, signal.SIG_IGN)


def _handle_ending_signal(number: int, _: FrameType | None) -> NoReturn:
    # A second one, as impatient users send, must not cut the cleaning up short.
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
    """A descriptor; what is written after its reader has left, as `head` does, goes nowhere."""

    def write(self, content: Any) -> int:
        """Write bytes; return how many."""
        try:
            return super().write(content)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(content)


def prepare_streams() -> None:
    """Have writing to both streams end no command: for want of a reader, or of a character."""
    sys.stdout = _make_robust_stream(sys.stdout)
    sys.stderr = _make_robust_stream(sys.stderr)


def _make_robust_stream(stream: TextIO) -> TextIO:
    # None where the descriptor is closed; what tests put in its place is no file.
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    buffered = io.BufferedWriter(_Descriptor(stream.fileno(), "w", closefd=False))
    # File names need not be text, and a terminal need not be UTF-8.
    return io.TextIOWrapper(
        buffered,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


TELEMETRY_SWITCHES = MappingProxyType({"ORT_DISABLE_TELEMETRY": "1", "NNCF_CI": "1"})
"""Variables that ONNX Runtime, and NNCF in `tools/bench`, look at when they are imported.

A process hands them on to those that it starts.
"""


def disable_telemetry() -> None:
    """Set the switches for this process and for all that it starts, whatever they were before."""
    os.environ.update(TELEMETRY_SWITCHES)
