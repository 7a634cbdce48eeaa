"""Network accesses of a program and its child processes, from strace.

Attempts count, not their success: they are recorded without a network too.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

CALLS = "socket,connect,bind,sendto,sendmsg,sendmmsg,io_uring_setup"
"""Calls that reach another program. io_uring hides its operations, so its set-up counts."""
LOCAL_FAMILIES = {"AF_UNIX", "AF_NETLINK", "AF_UNSPEC"}
"""Socket families within this machine and to its kernel."""
RESOLVER = re.compile(r'sun_path=@?"[^"]*(resolve|avahi|dnsmasq)')
"""Local sockets of name services."""
DNS = {"53", "853"}
_FAMILY = re.compile(r"\b(AF_\w+|PF_\w+)")
_ADDRESS = re.compile(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"')
_PORT = re.compile(r"sin6?_port=htons\((\d+)\)")


def trace_command(command: Sequence[str], log: Path) -> list[str]:
    """Return a command that runs another one and logs its system calls and those of its children.

    Raises:
        RuntimeError: strace is not installed. The test must not pass without it.
    """
    if shutil.which("strace") is None:
        raise RuntimeError("this test needs strace: apt-get install strace")
    options = ["-f", "-qq", "--seccomp-bpf", "-e", f"trace={CALLS}", "-e", "signal=none"]
    return ["strace", *options, "-o", str(log), *command]


def find_attempts(log: Path, *, loopback: bool = False) -> list[str]:
    """Return the calls in a log that address another machine or resolve a name.

    Args:
        log: The output of strace.
        loopback: Whether its programs may use the local addresses of this machine.
    """
    return [line for line in _read_calls(log) if _is_remote(line, loopback)]


def _read_calls(log: Path) -> Iterator[str]:
    """Yield each call without its process ID. Skip the second half of an interrupted call."""
    for line in log.read_text(errors="replace").splitlines():
        call = line.lstrip("0123456789 ")
        if not call.startswith("<..."):
            yield call


def _is_remote(call: str, loopback: bool) -> bool:
    name = call.partition("(")[0]
    if name == "io_uring_setup" or RESOLVER.search(call):
        return True
    families = set(_FAMILY.findall(call)) - LOCAL_FAMILIES
    if name == "socket":
        return bool(families - {"AF_INET", "AF_INET6"})
    if not families:
        return False  # on a connected socket: its connection was checked
    addresses, ports = _ADDRESS.findall(call), set(_PORT.findall(call))
    if (
        not addresses
        or ports & DNS
        or not all(ip_address(address).is_loopback for address in addresses)
    ):
        return True
    return name != "bind" and not loopback
