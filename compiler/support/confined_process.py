"""A process that decodes other people's files for this one, and can do nothing else.

It is started anew, so that it holds nothing of this process; what it answers is bytes and a small
JSON object, which this process checks: whoever takes over the decoder gets no further. Where it
crashes, hangs or runs out of memory, that is an error of the file that it decoded.

A frame is the lengths of a JSON text and of bytes, then both.
"""

import importlib
import json
import math
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, TypeAlias

from tcc.compiler.support import confinement
from tcc.compiler.support.diagnostics import MAX_TEXT, Diagnostic, Span, UserError

LENGTHS = struct.Struct("<IQ")
MOST_TEXT = 1 << 20
"""Most bytes of a frame's JSON text."""
PIPE = 1 << 20
"""Bytes that a pipe holds, where the system lets it: fewer wake-ups for each image."""
START = 60.0
"""Seconds that a process has to start."""
_PROGRAM = (
    "import sys; from tcc.compiler.support import confined_process; "
    "confined_process.serve(sys.argv[1], int(sys.argv[2]))"
)
_SET_PIPE_SIZE = 1031
_CODE = re.compile(r"[EW][0-9]{4}")
MAX_PATH = 4096
"""Most characters of a file's name in an error."""

Reply: TypeAlias = tuple[dict[str, Any], bytes | bytearray | memoryview]
Decoder: TypeAlias = Callable[[dict[str, Any], bytes], Reply]
"""A module's `answer`: from a request and bytes to a reply and bytes."""


class DecoderError(Exception):
    """A decoder ended without an answer; says in a few words how."""


class ConfinedProcess:
    """A confined process that answers one request after the other.

    Args:
        module: The module whose function `answer` is called there.
        memory: Most bytes of memory that it may take beyond its modules.
    """

    def __init__(self, module: str, memory: int) -> None:
        words = ("-P", "-c", _PROGRAM, module, str(memory))  # -P: nothing of the folder it runs in
        self._process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for descriptor in (self._in, self._out):
            os.set_blocking(descriptor, False)
            _widen(descriptor)
        self._started = self.is_closed = False

    def ask(self, request: dict[str, Any], payload: bytes, seconds: float, most: int) -> Reply:
        """Return what the process answers.

        Args:
            request: What JSON can hold.
            payload: Bytes to decode.
            seconds: How long it may take.
            most: Most bytes of the answer.

        Raises:
            DecoderError: It crashed, was killed, took too long or all memory, or answers what is
                no answer; it is of no more use.
            UserError: Its own answer: what is wrong with the file.
        """
        until = time.monotonic() + seconds + (0 if self._started else START)
        text = json.dumps(request | {"seconds": math.ceil(seconds)}).encode()
        try:
            self._write([LENGTHS.pack(len(text), len(payload)) + text, payload], until)
            reply, answer = self._read_frame(until, most)
        except TimeoutError:
            self.close()
            raise DecoderError(f"it took longer than {seconds:.0f} s") from None
        except (OSError, ValueError, EOFError, RecursionError):
            raise DecoderError(self._explain_end()) from None
        self._started = True
        if reply.get("out_of_memory"):
            self.close()
            raise DecoderError("it took more memory than a decoder may")
        if "errors" in reply:
            try:
                error = _read_errors(reply["errors"])
            except (KeyError, TypeError, ValueError):
                self.close()
                raise DecoderError("it names an error that is none") from None
            raise error
        return reply, answer

    def close(self) -> None:
        """End the process."""
        self.is_closed = True
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe:
                    pipe.close()

    def _write(self, parts: list[bytes], until: float) -> None:
        rest = [memoryview(part) for part in parts]
        while rest:
            try:
                count = os.writev(self._in, rest)
            except BlockingIOError:
                _wait(self._in, select.POLLOUT, until)
                continue
            while rest and count >= len(rest[0]):
                count -= len(rest.pop(0))
            if rest:
                rest[0] = rest[0][count:]

    def _read(self, count: int, until: float) -> bytearray:
        data = bytearray(count)
        view, at = memoryview(data), 0
        while at < count:
            try:
                got = os.readv(self._out, [view[at:]])
            except BlockingIOError:
                _wait(self._out, select.POLLIN, until)
                continue
            if not got:
                raise EOFError
            at += got
        return data

    def _read_frame(self, until: float, most: int) -> Reply:
        text, payload = LENGTHS.unpack(self._read(LENGTHS.size, until))
        if text > MOST_TEXT or payload > most:
            raise ValueError("an answer is too large")
        reply = json.loads(self._read(text, until))
        if not isinstance(reply, dict):
            raise ValueError("an answer is no object")  # noqa: TRY004 - of what was received
        return reply, self._read(payload, until)

    def _explain_end(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1)
            self.close()
            if code < 0:
                return f"it was ended by {signal.Signals(-code).name}"
            return f"it ended with status {code}"
        self.close()
        return "it gave no answer"


def serve(module: str, memory: int) -> None:
    """Answer requests until the parent ends: the program of a confined process."""
    # What libraries print is not to stand among answers.
    reader, writer = os.fdopen(0, "rb", closefd=False), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    answer: Decoder = importlib.import_module(module).answer
    confinement.enter(memory)
    while head := reader.read(LENGTHS.size):
        text, payload = LENGTHS.unpack(head)
        request = json.loads(reader.read(text))
        signal.alarm(request.pop("seconds") + 5)  # should the parent be killed meanwhile
        _answer(answer, writer, request, reader.read(payload))
        signal.alarm(0)


def _answer(answer: Decoder, writer: BinaryIO, request: dict[str, Any], payload: bytes) -> None:
    try:
        reply, data = answer(request, payload)
    except UserError as error:
        reply, data = {"errors": [_describe(each) for each in error.diagnostics]}, b""
    except MemoryError:
        reply, data = {"out_of_memory": True}, b""
    text = json.dumps(reply).encode()
    view = memoryview(data).cast("B")
    writer.write(LENGTHS.pack(len(text), len(view)))
    writer.write(text)
    writer.write(view)
    writer.flush()


def _describe(error: Diagnostic) -> dict[str, Any]:
    fields = {name: getattr(error, name) for name in ("code", "message", "label", "help", "kind")}
    return fields | {"file": error.at.file, "line": error.at.line, "column": error.at.column}


def _read_errors(described: list[dict[str, Any]]) -> UserError:
    """Return the diagnostics that a process names; its words are bounded, and are text."""
    diagnostics = []
    for each in described:
        message, label, help, kind = (
            str(each[name])[:MAX_TEXT] for name in ("message", "label", "help", "kind")
        )
        if not _CODE.fullmatch(each["code"]):
            raise ValueError("an error has no code")
        at = Span(str(each["file"])[:MAX_PATH], int(each["line"]), int(each["column"]))
        error = Diagnostic(each["code"], message, at, label=label, help=help, kind=kind)
        diagnostics.append(error)
    if not diagnostics:
        raise ValueError("there is no error")
    return UserError(tuple(diagnostics))


def _wait(descriptor: int, event: int, until: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    left = until - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError


def _widen(descriptor: int) -> None:
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.fcntl(descriptor, _SET_PIPE_SIZE, PIPE)
