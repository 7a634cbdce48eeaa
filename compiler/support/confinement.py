"""What a process gives up before it decodes other people's files: memory, files, programs, network.

It works without privileges. Memory and file sizes are limits of the system; on Linux a seccomp
filter refuses system calls (seccomp(2)). Where there is none, the limits are what is left.
"""

import ctypes
import platform
import resource
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass

NETWORK, PROGRAMS, WRITES = "network", "programs", "writes"
"""What a process that entered is refused, where the system can."""
_NO_NEW_PRIVILEGES, _DUMPABLE = 38, 4
"""Numbers of prctl(2)."""
_SET_FILTER, _ALLOW_SPECULATION = 1, 4
"""What seccomp(2) is asked for; older kernels slow a filtered process down unless asked not to."""
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1
"""What a filter answers: go on, or EPERM."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06
"""Codes of the filter's machine: load a word, three jumps, and the answer."""
_OPEN_FLAGS = 0o1 | 0o2 | 0o100
"""O_WRONLY, O_RDWR and O_CREAT."""


@dataclass(frozen=True, slots=True)
class _Machine:
    """A kind of processor: its number for seccomp, and numbers of system calls.

    Args:
        number: Its AUDIT_ARCH.
        seccomp: The call that sets a filter.
        refused: Calls that are refused.
        opening: Calls that open a file, with the place of their flags among the arguments.
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
"""Numbers from here on are other ways to the same calls on x86-64."""


def enter(memory: int) -> frozenset[str]:
    """Give up, for the rest of this process's life, all that decoding does not need.

    Args:
        memory: Most bytes of address space beyond what the process has already.

    Returns:
        Which of `NETWORK`, `PROGRAMS` and `WRITES` the system refuses from now on.
    """
    limit = _address_space() + memory
    for kind, most in (
        (resource.RLIMIT_AS, limit), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0),
    ):  # fmt: skip
        with suppress(OSError, ValueError):  # a lower one may be there
            resource.setrlimit(kind, (most, most))
    if not sys.platform.startswith("linux"):
        return frozenset()
    return _enter_linux()


def _address_space() -> int:
    """Return the bytes of address space that the process has, as Linux counts them."""
    with suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
    return 0


def _enter_linux() -> frozenset[str]:
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_DUMPABLE, 0, 0, 0, 0)
    known = _MACHINES.get(platform.machine())
    if known is None or library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return frozenset()
    program = _build_filter(known)
    text = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(text))
    arguments = ctypes.create_string_buffer(head, len(head))
    if library.syscall(known.seccomp, _SET_FILTER, _ALLOW_SPECULATION, arguments):
        return frozenset()
    return frozenset((NETWORK, PROGRAMS, WRITES))


def _build_filter(machine: _Machine) -> bytes:
    """Return a filter's program; jumps count instructions to be passed over, if yes and if no."""
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, machine.number), (_ANSWER, 0, 0, _REFUSE)]
    steps += [(_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, _FIRST_OF_X32), (_ANSWER, 0, 0, _REFUSE)]
    for call in machine.refused:
        steps += [(_EQUAL, 0, 1, call), (_ANSWER, 0, 0, _REFUSE)]
    for call, place in machine.opening:
        steps += [
            (_EQUAL, 0, 4, call),
            (_LOAD, 0, 0, 16 + 8 * place),  # the lower half of an argument
            (_ANY_BIT, 0, 1, _OPEN_FLAGS),
            (_ANSWER, 0, 0, _REFUSE),
            (_ANSWER, 0, 0, _ALLOW),
        ]
    steps.append((_ANSWER, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", code, yes, no, word) for code, yes, no, word in steps)
