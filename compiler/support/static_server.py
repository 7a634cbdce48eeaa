"""A web server of some files that are known beforehand: whatever else is asked for is not there."""

import shutil
import socket
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from tcc.compiler.support import regular_files

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
"""What browsers are told of files, by how their names end; of all others that they are bytes."""
HEADERS = {
    # WebAssembly is compiled only where the policy names it; `connect-src` lets no script send
    # anything elsewhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
    "style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SECONDS = 30
"""How long a client may take to ask, or to take more of an answer."""


class StaticServer(ThreadingHTTPServer):
    """Serves files by their paths, and sends who asks for none of them to `start`."""

    daemon_threads = True

    def __init__(self, host: str, port: int, files: Mapping[str, Path], start: str) -> None:
        """Listen; `files` are by their paths below the root, with `/`.

        Raises:
            OSError: The address is taken, or no address of this machine.
        """
        self.files, self.start, self.host = files, start, host
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Answer)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def knows(self, host: str) -> bool:
        """Whether a request's Host is one of this server's, where only this machine reaches it.

        A name of somebody else's that leads to the loopback would let pages of theirs read files.
        """
        return self.host not in LOOPBACK or urlsplit(f"//{host}").hostname in LOOPBACK


class _Answer(BaseHTTPRequestHandler):
    server: StaticServer
    timeout = SECONDS
    server_version, sys_version = "tcc", ""

    def do_GET(self) -> None:
        """Send a file."""
        found = self._opened()
        if found:
            with found:
                shutil.copyfileobj(found, self.wfile)

    def do_HEAD(self) -> None:
        """Send what is said of a file."""
        found = self._opened()
        if found:
            found.close()

    def _opened(self) -> BinaryIO | None:
        """Return the file that is asked for, with what is said of it sent; None if it is none."""
        path = unquote(urlsplit(self.path).path).lstrip("/")
        if not self.server.knows(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif not path:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", f"/{self.server.start}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif (file := self.server.files.get(path)) is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            return self._begun(file)
        return None

    def _begun(self, path: Path) -> BinaryIO | None:
        try:
            file = regular_files.opened(path)
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        self.send_response(HTTPStatus.OK)
        kind = TYPES.get(PurePosixPath(path.name).suffix, "application/octet-stream")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        return file

    def end_headers(self) -> None:
        """Add what holds for all answers."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of who asks for what."""
