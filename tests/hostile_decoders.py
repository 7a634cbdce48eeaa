"""A decoder module that behaves like hostile code in a confined process."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from tcc.compiler.support.diagnostics import fail, make_file_span


def refuse(_):
    raise fail("E0703", "it is damaged", make_file_span("x.png"), label="l" * 5000, help="h")


def flood(_):
    for number in range(3, 9):
        try:
            os.write(number, b"\xff" * 64)
        except OSError:
            continue
    os._exit(0)


def change(call):
    """Return a function that changes the file of a request."""
    return lambda request: call(Path(request["path"]))


DEEDS = {
    "crash": lambda _: ctypes.string_at(0),
    "abort": lambda _: os.abort(),
    "leave": lambda _: os._exit(3),
    "hang": lambda _: time.sleep(600),
    "flood": flood,
    "refuse": refuse,
    "raise": lambda _: {}["no such key"],
    "connect": lambda request: socket.create_connection(("127.0.0.1", request["port"]), 2),
    "pair": lambda _: socket.socketpair(),
    "run": lambda _: subprocess.run(["/bin/true"], check=False),
    "write": change(lambda path: path.write_text("x")),
    "append": change(lambda path: os.close(os.open(path, os.O_WRONLY))),
    "unlink": change(lambda path: path.unlink()),
    "rename": change(lambda path: path.rename(path.with_suffix(".other"))),
    "chmod": change(lambda path: path.chmod(0o777)),
    "kill": lambda request: os.kill(request["pid"], signal.SIGTERM),
}


def answer(request, payload):
    """Perform the attack that a request names and return its result."""
    if request["do"] == "echo":
        return {"length": len(payload)}, payload
    if request["do"] == "fill":
        return {}, bytearray(request["bytes"])
    if request["do"] == "lie":
        return {"errors": request["errors"]}, b""
    try:
        DEEDS[request["do"]](request)
    except OSError as error:
        return {"refused": error.strerror}, b""
    return {"refused": ""}, b""
