"""Signals that end a process: they unwind it, so that nothing half-written stays.

Its exit code is then 128 and the signal's number, as a shell has it, whatever the unwinding becomes
on its way: native code that is interrupted while it is imported turns it into another exception.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGTERM, signal.SIGHUP)
GRACE = 10
"""Seconds after which a process ends that native code keeps from unwinding."""


class _Received:
    """The exit codes of the signals that came."""

    ending: int | None = None
    interrupt: int | None = None


def catch() -> None:
    """Have ending signals unwind this process, from now on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    for number in ENDING:
        # Whoever has us ignore them (nohup) means it.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def get_exit_code(*, failed: bool) -> int | None:
    """Return the exit code of the signal that came; None where none did.

    Args:
        failed: Whether an error ended the work. Else Ctrl-C does not count: some commands end well
            by it.
    """
    return _Received.ending or (_Received.interrupt if failed else None)


def ignore() -> None:
    """Let no signal change how a process ends whose work is done.

    The interpreter takes handlers away before it has ended.
    """
    for number in ENDING:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_IGN)


def _end(number: int, _: FrameType | None) -> NoReturn:
    # A second one, as impatient users send, must not cut the cleaning up short.
    signal.signal(number, signal.SIG_IGN)
    _Received.ending = 128 + number
    fallback = threading.Timer(GRACE, os._exit, (_Received.ending,))
    fallback.daemon = True
    fallback.start()
    sys.exit(_Received.ending)


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    _Received.interrupt = 128 + number
    raise KeyboardInterrupt
