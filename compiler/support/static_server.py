"""A web server for a fixed set of files: all other paths are not found."""

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
"""What `socketserver` calls a request: the connection, for a TCP server."""
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
"""Content types by suffix; all other files are sent as bytes."""
STYLE_POLICY = "style-src 'self'"
HEADERS = {
    # WebAssembly compiles only if the policy allows it; `connect-src` keeps scripts from sending
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
"""Connections that are answered at the same time, each by a thread; browsers open six."""
CLIENT_TIMEOUT = 30.0
"""Seconds that a client may take to ask, and may pause while it reads an answer."""
MIN_BYTES_PER_SECOND = 1 << 16
"""Bytes per second that a client must read, once `CLIENT_TIMEOUT` has passed."""


class StaticServer(ThreadingHTTPServer):
    """Serves files by path, and redirects requests for the root to `start_path`.

    Connections beyond `MAX_CONNECTIONS` wait, and each has a deadline.
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
        """Listen; the keys of `files` are paths below the root, with `/`.

        `inline_styles` allows scripts of the page to set styles, as image viewers do.

        Raises:
            OSError: The address is in use, or is not an address of this machine.
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
        """The server's URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def is_accepted_host(self, host: str) -> bool:
        """Whether a request's Host is this server's, if only this machine can reach it.

        Otherwise a page of another site could read files through a name that resolves to the
        loopback address.
        """
        if self.host not in LOOPBACK:
            return True
        try:
            return urlsplit(f"//{host}").hostname in LOOPBACK
        except ValueError:  # brackets without an address
            return False

    def process_request(self, request: Request, client_address: object) -> None:
        """Answer in a new thread, as soon as a slot is free."""
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
        """Answer in this thread, and release the slot."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._release_slot(request[1] if isinstance(request, tuple) else request)

    def _release_slot(self, connection: socket.socket) -> None:
        # Once: Ctrl-C may interrupt the wait for a thread that has already ended.
        if self.connections.pop(connection, None) is not None:
            self._connection_slots.release()

    def allow(self, connection: socket.socket, size: int) -> None:
        """Extend a connection's deadline for an answer of `size` bytes."""
        self.connections[connection] = (
            time.monotonic() + CLIENT_TIMEOUT + size / MIN_BYTES_PER_SECOND
        )

    def service_actions(self) -> None:
        """End connections past their deadline; `serve_forever` calls it between requests."""
        now = time.monotonic()
        for connection, deadline in tuple(self.connections.items()):
            if now > deadline:
                with suppress(OSError):  # it has ended meanwhile
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, _request: Request, _client_address: object) -> None:
        """Ignore a client that disconnected; report an error of the server."""
        if not isinstance(error := sys.exception(), OSError):
            print(f"internal error while a request was answered: {error!r}", file=sys.stderr)


class _RequestHandler(BaseHTTPRequestHandler):
    server: StaticServer
    server_version, sys_version = "tcc", ""

    def setup(self) -> None:
        """Limit every wait for the client to `CLIENT_TIMEOUT`."""
        super().setup()
        self.connection.settimeout(CLIENT_TIMEOUT)

    def do_GET(self) -> None:
        """Send a file."""
        file = self._open_requested()
        if file:
            with file:
                shutil.copyfileobj(file, self.wfile)

    def do_HEAD(self) -> None:
        """Send the headers of a file."""
        file = self._open_requested()
        if file:
            file.close()

    def _open_requested(self) -> BinaryIO | None:
        """Return the requested file, with its headers sent; None if there is none."""
        try:
            path = unquote(urlsplit(self.path).path).lstrip("/")
        except ValueError:  # brackets without an address
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
        """Add the headers of all answers."""
        for name, header in HEADERS.items():
            inline = (
                f"{STYLE_POLICY} 'unsafe-inline'" if self.server.inline_styles else STYLE_POLICY
            )
            self.send_header(name, header.replace(STYLE_POLICY, inline))
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log no requests."""
