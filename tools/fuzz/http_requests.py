"""Send arbitrary bytes to `tcc serve`, from clients that wait, stop or disconnect.

Within seconds, every request must get an answer or a closed connection. The server must print
nothing. A returned file must be one of the bundle's, and a valid request must work afterwards.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

from bundles import build_templates
from case import Case, Front, Outcome

REQUESTS = 100
"""The number of requests to one server, which is one case."""
PATIENCE = 10.0
"""A request without an answer after so many seconds has failed."""
INTERRUPTED = 130
PATHS = (
    "/", "/manifest.json", "/model/app.js", "/model/index.html", "/model/model.onnx", "*", "",
    "//[", "http://[/x", "http://localhost/manifest.json", "/model/../manifest.json", "/..", "/%",
    "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/manifest.json?[", "/#", "/\0", "http://[::1/",
    "/model", "/" + "a" * 70000, "/\xff", "/%ff%fe", "http:/\\x", "/;x", "?", "[::1]:80",
)  # fmt: skip
HOSTS = (
    "localhost", "127.0.0.1:1", "[", "]", "[::1]", "[::1", "[x]", "", "a]b", "evil.example",
    "\xff",
    "localhost:99999999999", "user@localhost", "[v1.x]", "[::ffff:1.2.3.4]", "localhost#",
    "?", "\0",
)  # fmt: skip
PIECES = (
    b"[", b"]", b"\r\n", b"\n", b"\0", b" ", b"%", b"//", b":", b"\xff", b"x" * 70000,
    b"\r\n" * 200,
    b"a: b\r\n" * 150, b" HTTP/9.9", b" HTTP/1.0", b"Host: [\r\n", b"Content-Length: -1\r\n", b"",
    b"Expect: 100-continue\r\n", b"Connection: keep-alive\r\n", b"Transfer-Encoding: chunked\r\n",
)  # fmt: skip
STATUSES = (200, 302, 400, 404, 414, 417, 421, 431, 501, 505)


@dataclass
class _Visit:
    """The results of the clients of one server."""

    seed: int
    wrong: list[str] = field(default_factory=list)

    def send_requests(self, process: int, folder: Path) -> None:
        """Send the requests, then stop the server as Ctrl-C does."""
        numbers = Random(self.seed)
        try:
            address = _wait_for_address(folder.with_suffix(".out"))
            for _ in range(REQUESTS):
                self._send(address, numbers)
            answer = _send_request(address, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", _read_all)
            if not answer.startswith(b"HTTP/1.0 302 "):
                self.wrong.append(f"a valid request gets {answer[:40]!r}")
        except OSError as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGINT)

    def _send(self, address: tuple[str, int], numbers: Random) -> None:
        request = _make_request(numbers)
        receive = numbers.choices((_read_all, _read_briefly, _skip_answer, _reset), (6, 2, 1, 1))[0]
        try:
            wrong = _check_answer(
                _send_request(address, request, receive), is_complete=receive is not _reset
            )
        except TimeoutError:
            wrong = "no answer"
        if wrong:
            self.wrong.append(f"{wrong}: {request[:80]!r}")

    def check(self, outcome: Outcome, _: Path) -> str:
        """Return what was wrong with the answers."""
        return "; ".join(self.wrong[:3]) or outcome.err.strip()[-200:]


def _wait_for_address(out: Path) -> tuple[str, int]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, KeyError):
            url = json.loads(out.read_text())["url"]
            return "127.0.0.1", int(url.rstrip("/").rpartition(":")[2])
        time.sleep(0.01)
    raise TimeoutError("the server did not print its address")


def _make_request(numbers: Random) -> bytes:
    method = numbers.choice(("GET",) * 6 + ("HEAD", "POST", "get", "\xff", "", "OPTIONS"))
    version = numbers.choice((" HTTP/1.1",) * 5 + (" HTTP/1.0", "", " HTTP/9", " HTTP/1.1 x", " X"))
    path, host = numbers.choice(PATHS), numbers.choice(HOSTS)
    text = f"{method} {path}{version}\r\nHost: {host}\r\nAccept: */*\r\n\r\n"
    request = bytearray(text.encode("latin-1"))
    for _ in range(numbers.choice((0, 0, 1, 1, 4))):
        at = numbers.randrange(len(request) + 1)
        request[at : at + numbers.choice((0, 0, 1, 9))] = numbers.choice(PIECES)
    if numbers.random() < 0.05:
        return numbers.randbytes(numbers.choice((1, 100, 1 << 18)))
    return bytes(request[: numbers.randrange(len(request))] if numbers.random() < 0.1 else request)


def _send_request(
    address: tuple[str, int], request: bytes, receive: Callable[[socket.socket], bytes]
) -> bytes:
    with socket.create_connection(address, timeout=PATIENCE) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(request)
        return receive(client)


def _read_all(client: socket.socket) -> bytes:
    """Close the sending side, and read the complete answer."""
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)
    return _receive_answer(client)


def _read_briefly(client: socket.socket) -> bytes:
    """Read the answer to a request that may be incomplete, with a short timeout."""
    client.settimeout(0.1)
    with contextlib.suppress(TimeoutError):
        return _receive_answer(client)
    return b""


def _skip_answer(_: socket.socket) -> bytes:
    """Read nothing."""
    return b""


def _reset(client: socket.socket) -> bytes:
    """Read a little, and reset the connection."""
    client.settimeout(0.1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        return client.recv(20)
    return b""


def _receive_answer(client: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def _check_answer(answer: bytes, *, is_complete: bool) -> str:
    """Return what is wrong with an answer; a closed connection without one is allowed."""
    if not answer.startswith(b"HTTP/1.0 "):
        short = not answer or answer.startswith(b"<!DOCTYPE HTML>")
        is_file_start = any(file.startswith(answer) for file in _read_served())
        return "" if short or is_file_start else f"unexpected answer: {answer[:40]!r}"
    status = int(answer[9:12])
    if status not in STATUSES:
        return f"status {status}"
    body = answer.partition(b"\r\n\r\n")[2]
    is_expected = status != STATUSES[0] or not is_complete or not body or body in _read_served()
    return "" if is_expected else "the answer has a file that is not in the bundle"


@cache
def _read_served() -> set[bytes]:
    manifest = json.loads((_get_bundle() / "manifest.json").read_bytes())
    paths = ["manifest.json", *(file["path"] for file in manifest["files"])]
    return {(_get_bundle() / path).read_bytes() for path in paths}


def _get_bundle() -> Path:
    return build_templates() / "tiny-web-fp32"


def _make_case(numbers: Random) -> Case:
    visit = _Visit(numbers.getrandbits(32))
    return Case(
        ("serve", str(_get_bundle()), "--port", "0", "--json", "-q"),
        check=visit.check,
        meanwhile=visit.send_requests,
        expected=(INTERRUPTED,),
    )


def _prepare() -> None:
    if not _get_bundle().is_dir():
        raise SystemExit(
            "the front http needs a web bundle, but `tcc build --target web` does not work here"
        )
    import tcc.compiler.cli.serve
    import tcc.compiler.support.static_server  # noqa: F401


HTTP = Front("http", 100, _make_case, _prepare)
