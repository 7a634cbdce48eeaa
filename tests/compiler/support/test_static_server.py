"""The web server of known files: every request gets an answer or is closed, without a traceback."""

import contextlib
import socket
import threading
import time
from random import Random

import pytest

from tcc.compiler.support import static_server
from tcc.compiler.support.static_server import StaticServer

PAGE = b"<title>page</title>"
LARGE = bytes(8 << 20)


@pytest.fixture
def listening(tmp_path):
    """Serve two files. Shut down before the test ends."""
    for name, data in (("index.html", PAGE), ("large.bin", LARGE)):
        (tmp_path / name).write_bytes(data)
    files = {name: tmp_path / name for name in ("index.html", "large.bin")}
    with StaticServer("127.0.0.1", 0, files, "index.html") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(20)
        assert not thread.is_alive()


def connect(server):
    return socket.create_connection(server.server_address[:2], timeout=20)


def read_all(client):
    """Return all bytes until the connection ends in any way."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def send_request(server, request):
    with connect(server) as client:
        with contextlib.suppress(OSError):  # the answer came before all was sent
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
        return read_all(client)


def parse_status(answer):
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else None


def test_invalid_host_headers_are_refused(listening, capfd):
    hosts = ("[", "]", "[x]", "[::1", "a]b", "localhost:x", "\u2100".encode().decode("latin-1"))
    for host in hosts:
        answer = send_request(
            listening, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")
        )
        assert parse_status(answer) in (302, 421), (host, answer[:80])
    assert parse_status(send_request(listening, b"GET / HTTP/1.1\r\nHost: [\r\n\r\n")) == 421
    for path in (
        "http://[/x",
        "//[",
        "http://]",
        "http://[::1/index.html",
        "[",
        "*",
        "%",
        "%ff%00",
    ):
        answer = send_request(listening, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert parse_status(answer) in (400, 404), (path, answer[:80])
    request_bytes = b"GET http://localhost/index.html HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert send_request(listening, request_bytes).endswith(PAGE)
    assert capfd.readouterr().err == ""


def test_dropped_download_is_not_reported(listening, capfd):
    for _ in range(5):
        with connect(listening) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0] + [0] * 4))
            client.sendall(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.recv(10)
    assert (
        parse_status(send_request(listening, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 302
    )
    wait_until(lambda: not listening.connections)
    assert capfd.readouterr().err == ""


def test_connections_are_limited(listening):
    thread_count = threading.active_count()
    clients = [connect(listening) for _ in range(static_server.MAX_CONNECTIONS + 20)]
    try:
        wait_until(lambda: len(listening.connections) == static_server.MAX_CONNECTIONS)
        time.sleep(0.2)
        assert threading.active_count() - thread_count <= static_server.MAX_CONNECTIONS
    finally:
        for client in clients:
            client.close()
    # Waiting clients are served now.
    assert (
        parse_status(send_request(listening, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 302
    )


@pytest.mark.parametrize("request_line", [b"", b"GET / HTTP/1.1\r\n", b"GET /large.bin"])
def test_slow_request_is_dropped(listening, monkeypatch, request_line):
    monkeypatch.setattr(static_server, "CLIENT_TIMEOUT", 0.3)
    start = time.monotonic()
    with connect(listening) as client, contextlib.suppress(ConnectionError):
        client.sendall(request_line)
        # A byte from time to time: no single wait is long.
        for _ in range(100):
            client.sendall(b"x")
            client.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                if not client.recv(1):
                    break
    assert time.monotonic() - start < 4


def test_slow_download_is_dropped(listening, monkeypatch):
    monkeypatch.setattr(static_server, "CLIENT_TIMEOUT", 0.3)
    monkeypatch.setattr(static_server, "MIN_BYTES_PER_SECOND", 1 << 30)
    with connect(listening) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(9) == b"HTTP/1.0 "
        assert listening.connections
        start = time.monotonic()
        wait_until(lambda: not listening.connections)
        assert time.monotonic() - start < 4


def test_random_requests_get_an_answer(listening, capfd):
    """The core of `python tools/fuzz http`."""
    numbers = Random(1)
    request_bytes = b"GET /index.html HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
    for _ in range(300):
        request = bytearray(request_bytes)
        for _ in range(numbers.choice((1, 2, 8))):
            at = numbers.randrange(len(request) + 1)
            request[at : at + numbers.choice((0, 0, 1, 9))] = numbers.choice(
                (b"[", b"]", b"\r\n", b"\0", b" ", b"%", b"//", b":", b"\xff", b"x" * 70000)
            )
        answer = send_request(listening, bytes(request))
        assert not answer or parse_status(answer) or answer == PAGE or b"Error code" in answer, (
            request
        )
    assert parse_status(send_request(listening, request_bytes)) == 200
    assert capfd.readouterr().err == ""


def test_interrupt_at_any_moment_stops_the_server(listening, monkeypatch):
    """Ctrl-C while waiting for a started thread that ends before the interrupt is handled."""
    finished = threading.Event()
    begin, finish = threading.Thread.start, StaticServer._release_slot

    def interrupt(thread):
        begin(thread)
        assert finished.wait(20)
        raise KeyboardInterrupt

    def signal_finish(server, connection):
        finish(server, connection)
        finished.set()

    monkeypatch.setattr(StaticServer, "_release_slot", signal_finish)
    client, connection = socket.socketpair()
    with client, connection:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        monkeypatch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            listening.process_request(connection, ("127.0.0.1", 1))


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
