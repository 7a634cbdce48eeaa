"""No command of tcc contacts another machine, including its child processes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from command_session import make_environment, read_session, run_session
from command_uses import USES, list_command_names
from shared_folders import fill_once
from traced_calls import find_attempts, trace_command

from tcc.backends.web.backend import RUNTIME_PACKAGE
from tcc.compiler.slides import slide_viewer
from tcc.compiler.support.external_tools import MissingTool

ROOT = Path(__file__).resolve().parents[1]
FETCHED = {"web": RUNTIME_PACKAGE, "slide": slide_viewer.LIBRARY}
"""Packages that npm downloads once for all tests, by the uses that need them."""
ALLOWED_FOLDERS = (
    ".cache/tcc",
    ".cache/stages",
    ".cache/matplotlib",
    ".local/state/tcc",
    ".config/tcc",
)
"""Folders that may remain in the home folder: docs/security.md lists each."""
SEND = """
import socket, subprocess, sys
ways = {
    "tcp": lambda: socket.create_connection(("192.0.2.1", 443), timeout=1),
    "udp": lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9)),
    "message": lambda: socket.socket(type=socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, ("192.0.2.1", 9)),
    "six": lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 443)),
    "name": lambda: socket.getaddrinfo("tcc.invalid", 443),
    "proxy": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "listening": lambda: socket.socket().bind(("0.0.0.0", 0)),
    "child": lambda: subprocess.run([sys.executable, __file__, "tcp"]),
}
try:
    ways[sys.argv[1]]()
except OSError:
    pass
"""
QUIET = """
import socket, sys
here = socket.create_server(("127.0.0.1", 0))
socket.create_connection(here.getsockname())
socket.socketpair()
"""


@pytest.fixture(scope="session")
def session(tmp_path_factory):
    for package in FETCHED.values():
        try:
            package.load_files()
        except MissingTool as error:
            pytest.skip(f"{error} {error.reason}")
    return read_session(fill_once(tmp_path_factory, "session", run_session))


def test_every_command_is_in_the_session():
    lines = [use.line for use in USES]
    assert len(set(lines)) == len(lines)
    used_commands = {
        name
        for name in list_command_names()
        if any(f"{line} ".startswith(f"{name} ") for line in lines)
    }
    assert used_commands == set(list_command_names())
    assert {"plot curves", "slide run", "dev table", "dev cache clear", "help"} <= used_commands


@pytest.mark.slow
@pytest.mark.parametrize("use", USES, ids=str)
def test_commands_contact_no_other_machine(session, use):
    end = session.outcomes[use.line]
    assert end.code == (143 if use.serves else 0), end.out + end.err
    assert find_attempts(session.log(use), loopback=use.loopback) == []


@pytest.mark.slow
def test_a_session_writes_nothing_else_to_the_home_folder(session):
    """ONNX Runtime's telemetry creates a folder there before it sends anything."""
    files = [
        path.relative_to(session.home).as_posix()
        for path in session.home.rglob("*")
        if path.is_file()
    ]
    assert [name for name in files if not name.startswith(ALLOWED_FOLDERS)] == []


@pytest.mark.parametrize(
    "attempt", ["tcp", "udp", "message", "six", "name", "proxy", "listening", "child"]
)
def test_network_attempts_are_detected(tmp_path, attempt):
    (tmp_path / "send.py").write_text(SEND)
    log = tmp_path / "log"
    subprocess.run(
        trace_command([sys.executable, str(tmp_path / "send.py"), attempt], log), check=True
    )
    assert find_attempts(log)


def test_loopback_is_reported_only_when_forbidden(tmp_path):
    log = tmp_path / "log"
    subprocess.run(trace_command([sys.executable, "-c", QUIET], log), check=True)
    assert find_attempts(log, loopback=True) == []
    assert len(find_attempts(log)) == 1


@pytest.mark.parametrize("first_import", ["", "import tcc"])
def test_onnxruntime_telemetry_is_off_after_importing_tcc(tmp_path, first_import):
    """Without tcc, ONNX Runtime stores a machine identifier in the home folder."""
    program = f"{first_import}\nimport onnx, onnxruntime\nfrom onnx import helper\n"
    program += (
        "value = lambda name: helper.make_tensor_value_info(name, 1, [1])\n"
        "graph = helper.make_graph([helper.make_node('Relu', ['x'], ['y'])], 'g', [value('x')], [value('y')])\n"
        "model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)\n"
        "onnxruntime.InferenceSession(model.SerializeToString())\n"
    )
    # Block all outgoing connections.
    command = trace_command([sys.executable, "-c", program], tmp_path / "log")
    command[1:1] = ["-e", "inject=connect,sendto,sendmsg,sendmmsg:error=ENETUNREACH"]
    subprocess.run(command, env=make_environment(tmp_path / "home"), check=True)
    leftover_files = list((tmp_path / "home").rglob("*"))
    assert bool(leftover_files) == (not first_import), leftover_files


def test_telemetry_is_off_in_child_processes(tmp_path):
    program = (
        "import os, tcc; from tcc.compiler.support import bounded_process; from pathlib import Path;"
        "end = bounded_process.execute(['env'], Path(), 60, 1 << 20); print(end.out.decode())"
    )
    variables = make_environment(tmp_path) | {"ORT_DISABLE_TELEMETRY": "0"}
    completed = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ORT_DISABLE_TELEMETRY=1" in completed.stdout.splitlines()


def test_no_tool_imports_onnxruntime_before_tcc():
    """Import sorting would put ONNX Runtime first."""
    early = []
    for path in (ROOT / "tools").rglob("*.py"):
        if path.parent.name.endswith("_guests"):
            continue  # started by tools that have imported tcc
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            early += [path.name for name in names if name.partition(".")[0] == "onnxruntime"]
    assert early == []
