"""A web server of some files that are known beforehand: whatever else is asked for is not there."""

import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from tcc.compiler.support import regular_files

Request = socket.socket | tuple[bytes, socket.socket]
"""What `socketserver` calls a request: of a TCP server it is the connection."""
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
"""What browsers are told of files, by how their names end; of all others that they are bytes."""
STYLE_POLICY = "style-src 'self'"
HEADERS = {
    # WebAssembly is compiled only where the policy names it; `connect-src` lets no script send
    # anything elsewhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
    f"{STYLE_POLICY}; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_CONNECTIONS = 32
"""Most connections that are answered at a time, each by a thread; browsers open six."""
CLIENT_TIMEOUT = 30.0
"""How long a client may take to ask, and may pause while it takes an answer."""
MIN_BYTES_PER_SECOND = 1 << 16
"""Bytes a second that a client takes at least, from `SECONDS` on."""


class StaticServer(ThreadingHTTPServer):
    """Serves files by their paths, and sends who asks for none of them to `start_path`.

    Connections beyond `MAX_CONNECTIONS` wait for a turn, and each has a time by which it ends.
    """

    daemon_threads = True
    request_queue_size = 4 * MAX_CONNECTIONS

    def __init__(
        self,
        host: str,
        port: int,
        files: Mapping[str, Path],
        start_path: str,
        *,
        inline_styles: bool = False,
    ) -> None:
        """Listen; `files` are by their paths below the root, with `/`.

        `inline_styles` lets scripts of the page write styles into it, as viewers of images do.

        Raises:
            OSError: The address is taken, or no address of this machine.
        """
        self.files, self.start_path, self.host = files, start_path, host
        self.inline_styles = inline_styles
        self.connections: dict[socket.socket, float] = {}
        self._connection_slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _RequestHandler)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def is_accepted_host(self, host: str) -> bool:
        """Whether a request's Host is one of this server's, where only this machine reaches it.

        A name of somebody else's that leads to the loopback would let pages of theirs read files.
        """
        if self.host not in LOOPBACK:
            return True
        try:
            return urlsplit(f"//{host}").hostname in LOOPBACK
        except ValueError:  # brackets that hold no address
            return False

    def process_request(self, request: Request, client_address: object) -> None:
        """Answer in a thread of its own, as soon as there is a turn."""
        while not self._connection_slots.acquire(timeout=0.1):
            self.service_actions()
        connection = request[1] if isinstance(request, tuple) else request
        self.connections[connection] = time.monotonic() + CLIENT_TIMEOUT
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._release_slot(connection)
            raise

    def process_request_thread(self, request: Request, client_address: object) -> None:
        """Answer in this thread, and give the turn back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._release_slot(request[1] if isinstance(request, tuple) else request)

    def _release_slot(self, connection: socket.socket) -> None:
        # Once: Ctrl-C may end this thread's wait for a thread that has begun, and has ended.
        if self.connections.pop(connection, None) is not None:
            self._connection_slots.release()

    def allow(self, connection: socket.socket, size: int) -> None:
        """Let a connection last as long as an answer of `size` bytes may take."""
        self.connections[connection] = (
            time.monotonic() + CLIENT_TIMEOUT + size / MIN_BYTES_PER_SECOND
        )

    def service_actions(self) -> None:
        """End connections whose time is over; `serve_forever` calls it between requests."""
        now = time.monotonic()
        for connection, deadline in tuple(self.connections.items()):
            if now > deadline:
                with suppress(OSError):  # it ended by itself meanwhile
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, _request: Request, _client_address: object) -> None:
        """Pass over a client that went away; report what is a fault of the server."""
        if not isinstance(error := sys.exception(), OSError):
            print(f"internal error while a request was answered: {error!r}", file=sys.stderr)


class _RequestHandler(BaseHTTPRequestHandler):
    server: StaticServer
    server_version, sys_version = "tcc", ""

    def setup(self) -> None:
        """Let no wait for the client last longer than `CLIENT_TIMEOUT`."""
        super().setup()
        self.connection.settimeout(CLIENT_TIMEOUT)

    def do_GET(self) -> None:
        """Send a file."""
        file = self._open_requested()
        if file:
            with file:
                shutil.copyfileobj(file, self.wfile)

    def do_HEAD(self) -> None:
        """Send what is said of a file."""
        file = self._open_requested()
        if file:
            file.close()

    def _open_requested(self) -> BinaryIO | None:
        """Return the file that is asked for, with its headers sent; None if it is none."""
        try:
            path = unquote(urlsplit(self.path).path).lstrip("/")
        except ValueError:  # brackets that hold no address
            self.send_error(HTTPStatus.BAD_REQUEST)
            return None
        if not self.server.is_accepted_host(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif not path:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", f"/{self.server.start_path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif (file := self.server.files.get(path)) is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            return self._send_file_headers(file)
        return None

    def _send_file_headers(self, path: Path) -> BinaryIO | None:
        try:
            file = regular_files.open_file(path)
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        size = os.fstat(file.fileno()).st_size
        self.server.allow(self.connection, size)
        self.send_response(HTTPStatus.OK)
        kind = CONTENT_TYPES.get(PurePosixPath(path.name).suffix, "application/octet-stream")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        return file

    def end_headers(self) -> None:
        """Add what holds for all answers."""
        for name, header in HEADERS.items():
            inline = (
                f"{STYLE_POLICY} 'unsafe-inline'" if self.server.inline_styles else STYLE_POLICY
            )
            self.send_header(name, header.replace(STYLE_POLICY, inline))
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of who asks for what."""
