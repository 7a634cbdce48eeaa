"""Confined processes that are kept for the next file, one for each thread that decodes."""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tcc.compiler.support.confined_process import ConfinedProcess, DecoderError, Reply
from tcc.compiler.support.diagnostics import UserError, fail, whole_file


class DecoderPool:
    """Processes that decode files of one kind.

    Args:
        module: The module whose function `answer` decodes.
        memory: Most bytes of memory that each may take beyond its modules.
        what: What they decode, in errors: `image`.
    """

    def __init__(self, module: str, memory: int, what: str) -> None:
        self.module, self.memory, self.what = module, memory, what
        self._lock, self._owner = threading.Lock(), os.getpid()
        self._idle: list[ConfinedProcess] = []
        self._abandoned: list[ConfinedProcess] = []
        atexit.register(self.close)

    def start(self) -> None:
        """Start a process, which takes a moment, while other things are done."""
        with suppress(OSError):  # whoever needs it says so
            self._give_back(self._take())

    def ask(
        self, request: dict[str, Any], payload: bytes, name: str, seconds: float, most: int
    ) -> Reply:
        """Return what a process answers, as `ConfinedProcess.ask`; `name` is the file's.

        Raises:
            UserError: What is wrong with the file, or the process ended without an answer (E1326).
        """
        with self.lend(name) as decoder, explain_end(name, self.what):
            return decoder.ask(request, payload, seconds, most)

    @contextmanager
    def lend(self, name: str) -> Iterator[ConfinedProcess]:
        """Lend a process, which is kept for others unless it ends without an answer.

        Raises:
            UserError: None can be started (E1326).
        """
        try:
            decoder = self._take()
        except OSError as error:
            message = f"the process that decodes each {self.what} cannot be started"
            label = error.strerror or str(error)
            help = "the machine has too little memory or too many processes: end others"
            raise fail("E1326", message, whole_file(name), label=label, help=help) from None
        try:
            yield decoder
        except UserError:  # it has answered
            self._give_back(decoder)
            raise
        except BaseException:  # half of an answer may be on its way
            decoder.close()
            raise
        self._give_back(decoder)

    def close(self) -> None:
        """End those that are idle."""
        with self._lock:
            if self._owner == os.getpid():
                for decoder in self._idle:
                    decoder.close()
                self._idle = []

    def _take(self) -> ConfinedProcess:
        with self._lock:
            if self._owner != os.getpid():
                # A fork has the parent's pipes: two that write into one would mix their frames.
                self._abandoned += self._idle
                self._owner, self._idle = os.getpid(), []
            if self._idle:
                return self._idle.pop()
        return ConfinedProcess(self.module, self.memory)

    def _give_back(self, decoder: ConfinedProcess) -> None:
        with self._lock:
            if not decoder.is_closed:
                self._idle.append(decoder)


@contextmanager
def explain_end(name: str, what: str) -> Iterator[None]:
    """Turn the end of a decoder into an error of its file (E1326)."""
    try:
        yield
    except DecoderError as error:
        raise refuse_answer(name, what, str(error)) from error


def refuse_answer(name: str, what: str, how: str) -> UserError:
    """Return the error of a file whose decoder gives no answer, or none that can be (E1326)."""
    message = f"the decoder of this {what} ended without an answer"
    help = "the file is damaged, or made to harm: open and save it anew, or leave it out"
    return fail("E1326", message, whole_file(name), label=how, help=help)
