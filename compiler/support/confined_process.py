"""A sandboxed process that decodes untrusted files for this one.

It is started from scratch, so it shares no memory with this process. Its answer is bytes and a
small JSON object, which this process checks: a compromised decoder can do nothing else. If it
crashes, hangs or runs out of memory, that is an error of the file that it decoded.

A frame is the lengths of a JSON text and of bytes, then both.
"""

import atexit
import ctypes
import importlib
import json
import math
import os
import platform
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

from tcc.compiler.support.diagnostics import (
    MAX_TEXT,
    Diagnostic,
    Span,
    UserError,
    fail,
    make_file_span,
)

LENGTHS = struct.Struct("<IQ")
MAX_TEXT_BYTES = 1 << 20
"""Bytes that a frame's JSON text may have."""
PIPE_BYTES = 1 << 20
"""Bytes of a pipe's buffer, where the system allows it: fewer wake-ups for each image."""
START_SECONDS = 60.0
"""Seconds that a process may take to start."""
_PROGRAM = (
    "import sys; from tcc.compiler.support import confined_process; "
    "confined_process.serve(sys.argv[1], int(sys.argv[2]))"
)
_SET_PIPE_SIZE = 1031
_CODE = re.compile(r"[EW][0-9]{4}")
MAX_PATH = 4096
"""Characters that a file's name may have in an error."""

Reply: TypeAlias = tuple[dict[str, Any], bytes | bytearray | memoryview]
Decoder: TypeAlias = Callable[[dict[str, Any], bytes], Reply]
"""A module's `answer`: from a request and bytes to a reply and bytes."""


class DecoderError(Exception):
    """A decoder ended without an answer; the message says why."""


class ConfinedProcess:
    """A sandboxed process that answers one request at a time.

    Args:
        module: The module whose function `answer` is called in the process.
        memory: Bytes of memory that it may use in addition to its modules.
    """

    def __init__(self, module: str, memory: int) -> None:
        arguments = (
            "-P",
            "-c",
            _PROGRAM,
            module,
            str(memory),
        )  # -P: import nothing from the working folder
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for descriptor in (self._in, self._out):
            os.set_blocking(descriptor, False)
            _enlarge_pipe(descriptor)
        self._started = self.is_closed = False

    def send_request(
        self, request: dict[str, Any], payload: bytes, seconds: float, max_answer_bytes: int
    ) -> Reply:
        """Return the answer of the process.

        Args:
            request: A JSON object.
            payload: Bytes to decode.
            seconds: Time limit.
            max_answer_bytes: Size limit of the answer.

        Raises:
            DecoderError: The process crashed, was killed, exceeded its time or memory, or sent an
                invalid answer. It cannot be used again.
            UserError: The error that the process reported about the file.
        """
        deadline = time.monotonic() + seconds + (0 if self._started else START_SECONDS)
        text = json.dumps(request | {"seconds": math.ceil(seconds)}).encode()
        try:
            self._write([LENGTHS.pack(len(text), len(payload)) + text, payload], deadline)
            reply, answer = self._read_frame(deadline, max_answer_bytes)
        except TimeoutError:
            self.close()
            raise DecoderError(f"it took longer than {seconds:.0f} s") from None
        except (OSError, ValueError, EOFError, RecursionError):
            raise DecoderError(self._explain_exit()) from None
        self._started = True
        if reply.get("out_of_memory"):
            self.close()
            raise DecoderError("it needed more memory than a decoder may use")
        if "errors" in reply:
            try:
                error = _read_errors(reply["errors"])
            except (KeyError, TypeError, ValueError):
                self.close()
                raise DecoderError("it reported an invalid error") from None
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

    def _write(self, parts: list[bytes], deadline: float) -> None:
        pending = [memoryview(part) for part in parts]
        while pending:
            try:
                count = os.writev(self._in, pending)
            except BlockingIOError:
                _wait_until_ready(self._in, select.POLLOUT, deadline)
                continue
            while pending and count >= len(pending[0]):
                count -= len(pending.pop(0))
            if pending:
                pending[0] = pending[0][count:]

    def _read_bytes(self, count: int, deadline: float) -> bytearray:
        buffer = bytearray(count)
        view, offset = memoryview(buffer), 0
        while offset < count:
            try:
                count_read = os.readv(self._out, [view[offset:]])
            except BlockingIOError:
                _wait_until_ready(self._out, select.POLLIN, deadline)
                continue
            if not count_read:
                raise EOFError
            offset += count_read
        return buffer

    def _read_frame(self, deadline: float, max_payload_bytes: int) -> Reply:
        text_bytes, payload_bytes = LENGTHS.unpack(self._read_bytes(LENGTHS.size, deadline))
        if text_bytes > MAX_TEXT_BYTES or payload_bytes > max_payload_bytes:
            raise ValueError("an answer is too large")
        reply = json.loads(self._read_bytes(text_bytes, deadline))
        if not isinstance(reply, dict):
            raise ValueError("an answer is not an object")  # noqa: TRY004 - of received data
        return reply, self._read_bytes(payload_bytes, deadline)

    def _explain_exit(self) -> str:
        """Close the process; return why it gave no answer."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1)
            self.close()
            if code < 0:
                return f"it was stopped by {signal.Signals(-code).name}"
            return f"it ended with status {code}"
        self.close()
        return "it gave no answer"


def serve(module: str, memory: int) -> None:
    """Answer requests until the parent ends: the main function of a sandboxed process."""
    # Output that libraries print must not mix with answers.
    reader, writer = os.fdopen(0, "rb", closefd=False), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    answer: Decoder = importlib.import_module(module).answer
    limit_process(memory)
    while head := reader.read(LENGTHS.size):
        text, payload = LENGTHS.unpack(head)
        request = json.loads(reader.read(text))
        signal.alarm(request.pop("seconds") + 5)  # in case the parent is killed meanwhile
        _answer_request(answer, writer, request, reader.read(payload))
        signal.alarm(0)


def _answer_request(
    answer: Decoder, writer: BinaryIO, request: dict[str, Any], payload: bytes
) -> None:
    try:
        reply, content = answer(request, payload)
    except UserError as error:
        reply, content = (
            {"errors": [_describe(diagnostic) for diagnostic in error.diagnostics]},
            b"",
        )
    except MemoryError:
        reply, content = {"out_of_memory": True}, b""
    text = json.dumps(reply).encode()
    view = memoryview(content).cast("B")
    writer.write(LENGTHS.pack(len(text), len(view)))
    writer.write(text)
    writer.write(view)
    writer.flush()


def _describe(error: Diagnostic) -> dict[str, Any]:
    fields = {name: getattr(error, name) for name in ("code", "message", "label", "help", "kind")}
    return fields | {"file": error.at.file, "line": error.at.line, "column": error.at.column}


def _read_errors(described: list[dict[str, Any]]) -> UserError:
    """Return the error that a process reported, with its texts clipped."""
    diagnostics = []
    for fields in described:
        message, label, help, kind = (
            str(fields[name])[:MAX_TEXT] for name in ("message", "label", "help", "kind")
        )
        if not _CODE.fullmatch(fields["code"]):
            raise ValueError("an error has no code")
        at = Span(str(fields["file"])[:MAX_PATH], int(fields["line"]), int(fields["column"]))
        error = Diagnostic(fields["code"], message, at, label=label, help=help, kind=kind)
        diagnostics.append(error)
    if not diagnostics:
        raise ValueError("there is no error")
    return UserError(tuple(diagnostics))


def _wait_until_ready(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    seconds_remaining = deadline - time.monotonic()
    if seconds_remaining <= 0 or not poll.poll(seconds_remaining * 1000):
        raise TimeoutError


def _enlarge_pipe(descriptor: int) -> None:
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.fcntl(descriptor, _SET_PIPE_SIZE, PIPE_BYTES)


NETWORK, PROGRAMS, WRITES = "network", "programs", "writes"
"""What a restricted process may not do, where the system can enforce it."""
_NO_NEW_PRIVILEGES, _DUMPABLE = 38, 4
"""Numbers of prctl(2)."""
_SET_FILTER, _ALLOW_SPECULATION = 1, 4
"""Arguments of seccomp(2); older kernels slow a filtered process unless asked not to."""
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1
"""A filter's results: allow the call, or fail it with EPERM."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06
"""Opcodes of the filter's BPF machine: load a word, three jumps, and return."""
_OPEN_FLAGS = 0o1 | 0o2 | 0o100
"""O_WRONLY, O_RDWR and O_CREAT."""


@dataclass(frozen=True, slots=True)
class _Machine:
    """A processor architecture: its number for seccomp, and its system call numbers.

    Args:
        number: Its AUDIT_ARCH.
        seccomp: The call that sets a filter.
        refused: Calls that are refused.
        opening: Calls that open a file, with the index of their flags argument.
    """

    number: int
    seccomp: int
    refused: tuple[int, ...]
    opening: tuple[tuple[int, int], ...]


_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        317,
        (
            # socket connect accept sendto sendmsg bind listen socketpair accept4 sendmmsg
            41, 42, 43, 44, 46, 49, 50, 53, 288, 307,
            # execve execveat ptrace process_vm_* (2) kill io_uring_setup openat2 fork vfork
            59, 322, 101, 310, 311, 62, 425, 437, 57, 58,
            # rename* (3) unlink* (2) rmdir mkdir* (2) link* (2) symlink* (2) creat truncate
            82, 264, 316, 87, 263, 84, 83, 258, 86, 265, 88, 266, 85, 76,
            # chmod fchmod fchmodat chown fchown lchown fchownat
            90, 91, 268, 92, 93, 94, 260,
        ),
        ((2, 1), (257, 2)),
    ),
    "aarch64": _Machine(
        0xC00000B7,
        277,
        (
            # socket socketpair bind listen accept connect sendto sendmsg accept4 sendmmsg
            198, 199, 200, 201, 202, 203, 206, 211, 242, 269,
            # execve execveat ptrace process_vm_* (2) kill io_uring_setup openat2
            221, 281, 117, 270, 271, 129, 425, 437,
            # renameat* (2) unlinkat mkdirat linkat symlinkat truncate fchmod* (2) fchown* (2)
            38, 276, 35, 34, 37, 36, 45, 52, 53, 54, 55,
        ),
        ((56, 2),),
    ),
}  # fmt: skip
_FIRST_OF_X32 = 0x40000000
"""First number of the x32 calls, a second set of numbers for the same calls on x86-64."""


def limit_process(memory: int) -> frozenset[str]:
    """Drop, for the rest of this process's life, all rights that decoding does not need.

    Args:
        memory: Bytes of address space that may be added to what the process already has.

    Returns:
        Those of `NETWORK`, `PROGRAMS` and `WRITES` that the system now refuses.
    """
    limit = _measure_address_space() + memory
    for resource_kind, max_amount in (
        (resource.RLIMIT_AS, limit), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0),
    ):  # fmt: skip
        with suppress(OSError, ValueError):  # a lower limit may already be set
            resource.setrlimit(resource_kind, (max_amount, max_amount))
    if not sys.platform.startswith("linux"):
        return frozenset()
    return _install_filter()


def _measure_address_space() -> int:
    """Return the process's address space in bytes, from Linux's /proc; 0 if unknown."""
    with suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
    return 0


def _install_filter() -> frozenset[str]:
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_DUMPABLE, 0, 0, 0, 0)
    machine = _MACHINES.get(platform.machine())
    if machine is None or library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return frozenset()
    program = _build_filter(machine)
    program_buffer = ctypes.create_string_buffer(program, len(program))
    program_header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(program_buffer))
    arguments = ctypes.create_string_buffer(program_header, len(program_header))
    if library.syscall(machine.seccomp, _SET_FILTER, _ALLOW_SPECULATION, arguments):
        return frozenset()
    return frozenset((NETWORK, PROGRAMS, WRITES))


def _build_filter(machine: _Machine) -> bytes:
    """Return a filter's BPF program; a jump counts the instructions to skip, if yes and if no."""
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, machine.number), (_ANSWER, 0, 0, _REFUSE)]
    steps += [(_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, _FIRST_OF_X32), (_ANSWER, 0, 0, _REFUSE)]
    for call in machine.refused:
        steps += [(_EQUAL, 0, 1, call), (_ANSWER, 0, 0, _REFUSE)]
    for call, argument_index in machine.opening:
        steps += [
            (_EQUAL, 0, 4, call),
            (_LOAD, 0, 0, 16 + 8 * argument_index),  # the lower half of an argument
            (_ANY_BIT, 0, 1, _OPEN_FLAGS),
            (_ANSWER, 0, 0, _REFUSE),
            (_ANSWER, 0, 0, _ALLOW),
        ]
    steps.append((_ANSWER, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", code, yes, no, operand) for code, yes, no, operand in steps)


class DecoderPool:
    """Processes that decode files of one kind.

    Args:
        module: The module whose function `answer` decodes.
        memory: Bytes of memory that each may use in addition to its modules.
        noun: What they decode, for errors: `image`.
    """

    def __init__(self, module: str, memory: int, noun: str) -> None:
        self.module, self.memory, self.noun = module, memory, noun
        self._lock, self._owner = threading.Lock(), os.getpid()
        self._idle: list[ConfinedProcess] = []
        self._abandoned: list[ConfinedProcess] = []
        atexit.register(self.close)

    def start(self) -> None:
        """Start a process in advance, because starting takes a moment."""
        with suppress(OSError):  # the first request reports it
            self._release_process(self._allocate_process())

    def send_request(
        self,
        request: dict[str, Any],
        payload: bytes,
        name: str,
        seconds: float,
        max_answer_bytes: int,
    ) -> Reply:
        """Return the answer of a process, as `ConfinedProcess.send_request` does.

        `name` is the file's name, for errors.

        Raises:
            UserError: The file is invalid, or the process ended without an answer (E1326).
        """
        with self.use_process(name) as decoder, explain_exit(name, self.noun):
            return decoder.send_request(request, payload, seconds, max_answer_bytes)

    @contextmanager
    def use_process(self, name: str) -> Iterator[ConfinedProcess]:
        """Yield a process; it returns to the pool unless it ends without an answer.

        Raises:
            UserError: No process can be started (E1326).
        """
        try:
            decoder = self._allocate_process()
        except OSError as error:
            message = f"cannot start the process that decodes each {self.noun}"
            label = error.strerror or str(error)
            help = "the machine has too little memory or too many processes: stop other processes"
            raise fail("E1326", message, make_file_span(name), label=label, help=help) from None
        try:
            yield decoder
        except UserError:  # the process has answered and can be used again
            self._release_process(decoder)
            raise
        except BaseException:  # part of an answer may be in the pipe
            decoder.close()
            raise
        self._release_process(decoder)

    def close(self) -> None:
        """Stop all idle processes."""
        with self._lock:
            if self._owner == os.getpid():
                for decoder in self._idle:
                    decoder.close()
                self._idle = []

    def _allocate_process(self) -> ConfinedProcess:
        with self._lock:
            if self._owner != os.getpid():
                # A fork shares the parent's pipes: two writers would mix their frames.
                self._abandoned += self._idle
                self._owner, self._idle = os.getpid(), []
            if self._idle:
                return self._idle.pop()
        return ConfinedProcess(self.module, self.memory)

    def _release_process(self, decoder: ConfinedProcess) -> None:
        with self._lock:
            if not decoder.is_closed:
                self._idle.append(decoder)


@contextmanager
def explain_exit(name: str, noun: str) -> Iterator[None]:
    """Turn a decoder's failure into an error of its file (E1326)."""
    try:
        yield
    except DecoderError as error:
        raise make_decoder_error(name, noun, str(error)) from error


def make_decoder_error(name: str, noun: str, reason: str) -> UserError:
    """Return the error of a file whose decoder gave no valid answer (E1326)."""
    message = f"the decoder of this {noun} ended without an answer"
    help = "the file may be damaged or malicious: open it and save it again, or leave it out"
    return fail("E1326", message, make_file_span(name), label=reason, help=help)
