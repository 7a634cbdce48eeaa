"""Confined decoders: what a malicious file can do, and which errors are reported."""

import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tcc.compiler.support.confined_process import ConfinedProcess, DecoderError, DecoderPool
from tcc.compiler.support.diagnostics import UserError

MIB = 1 << 20
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"),
    reason="seccomp filters are written for Linux on x86-64 and AArch64",
)


@pytest.fixture
def start(monkeypatch, root):
    monkeypatch.setenv("PYTHONPATH", str(root / "tests"))
    processes = []

    def run(memory=256 * MIB):
        processes.append(ConfinedProcess("hostile_decoders", memory))
        return processes[-1]

    yield run
    for process in processes:
        process.close()


def send_request(process, do, payload=b"", seconds=60, max_bytes=64 * MIB, **fields):
    return process.send_request({"do": do, **fields}, payload, seconds, max_bytes)


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 25) + 3])
def test_payload_is_returned_unchanged(start, size):
    process, payload = start(), os.urandom(size)
    for _ in range(2):
        reply, answer = send_request(process, "echo", payload)
        assert reply == {"length": size}
        assert bytes(answer) == payload


@pytest.mark.parametrize(
    ("do", "ending"),
    [
        ("crash", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("leave", "status 3"),
        ("flood", "status 0"),
        ("raise", "status 1"),
    ],
)
def test_crash_without_an_answer_is_reported(start, do, ending):
    process = start()
    send_request(process, "echo")
    with pytest.raises(DecoderError, match=ending):
        send_request(process, do)


def test_hanging_decoder_is_stopped(start):
    process = start()
    send_request(process, "echo")
    begin = time.monotonic()
    with pytest.raises(DecoderError, match="took longer than 1 s"):
        send_request(process, "hang", seconds=1)
    assert time.monotonic() - begin < 20


def test_memory_is_limited(start):
    process = start(128 * MIB)
    assert len(send_request(process, "fill", bytes=16 * MIB)[1]) == 16 * MIB
    with pytest.raises(DecoderError, match="more memory than a decoder may use"):
        send_request(process, "fill", bytes=512 * MIB)


def test_answer_size_is_limited(start):
    with pytest.raises(DecoderError):
        send_request(start(), "fill", bytes=2 * MIB, max_bytes=MIB)


def test_error_text_is_limited(start):
    process = start()
    with pytest.raises(UserError) as raised:
        send_request(process, "refuse")
    (diagnostic,) = raised.value.diagnostics
    assert (diagnostic.code, diagnostic.message, diagnostic.at.file, diagnostic.help) == (
        "E0703", "it is damaged", "x.png", "h",
    )  # fmt: skip
    assert len(diagnostic.label) == 1000
    assert send_request(process, "echo")[0] == {"length": 0}  # the decoder continues


@pytest.mark.parametrize(
    "errors",
    [3, [], [3], [{}], [{"code": "E0703"}], [[]], None, [dict.fromkeys(
        ("code", "message", "label", "help", "kind", "file", "line", "column"), "x")]],
    ids=str,
)  # fmt: skip
def test_invalid_errors_stop_the_decoder(start, errors):
    with pytest.raises(DecoderError, match="reported an invalid error"):
        send_request(start(), "lie", errors=errors)


@linux
def test_network_is_blocked(start):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reply = send_request(start(), "connect", port=port)[0]
    assert reply == {"refused": os.strerror(1)}
    assert send_request(start(), "pair")[0] == {"refused": os.strerror(1)}


@linux
@pytest.mark.parametrize("do", ["run", "write", "append", "unlink", "rename", "chmod"])
def test_running_programs_and_changing_files_are_blocked(start, tmp_path, do):
    file = tmp_path / "file"
    file.write_text("before")
    file.chmod(0o600)
    assert send_request(start(), do, path=str(file))[0]["refused"]
    assert file.read_text() == "before"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


@linux
def test_killing_other_processes_is_blocked(start):
    with subprocess.Popen(["sleep", "60"]) as other_process:
        assert send_request(start(), "kill", pid=other_process.pid)[0]["refused"]
        assert other_process.poll() is None
        other_process.kill()


def test_modules_in_the_working_folder_are_not_imported(tmp_path, monkeypatch, start):
    (tmp_path / "json.py").write_text("import os; os._exit(9)")
    monkeypatch.chdir(tmp_path)
    assert send_request(start(), "echo")[0] == {"length": 0}


def test_each_thread_and_fork_has_its_own_decoder(monkeypatch, root):
    monkeypatch.setenv("PYTHONPATH", str(root / "tests"))
    pool = DecoderPool("hostile_decoders", 256 * MIB, "image")
    wrong = []

    def send_payloads(number):
        for size in range(1, 30):
            payload = bytes([number]) * (size * 1000)
            if bytes(pool.send_request({"do": "echo"}, payload, "x", 60, MIB)[1]) != payload:
                wrong.append(number)

    send_payloads(0)
    child = os.fork()
    if not child:
        send_payloads(1)
        os._exit(bool(wrong))
    threads = [threading.Thread(target=send_payloads, args=(number,)) for number in range(2, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not wrong
    assert 1 <= len(pool._idle) <= 4
    pool.close()


def test_pool_continues_after_a_crash_and_names_the_file(monkeypatch, root):
    monkeypatch.setenv("PYTHONPATH", str(root / "tests"))
    pool = DecoderPool("hostile_decoders", 256 * MIB, "slide")
    with pytest.raises(UserError) as raised:
        pool.send_request({"do": "crash"}, b"", "a/b.svs", 60, MIB)
    (diagnostic,) = raised.value.diagnostics
    assert (diagnostic.code, diagnostic.at.file) == ("E1326", "a/b.svs")
    assert diagnostic.message == "the decoder of this slide ended without an answer"
    assert "SIGSEGV" in diagnostic.label
    assert pool.send_request({"do": "echo"}, b"x", "c", 60, MIB)[0] == {"length": 1}
    pool.close()


@linux
def test_decoder_ends_with_its_parent(root):
    program = (
        "from tcc.compiler.support.confined_process import ConfinedProcess as P; import os; "
        "p = P('hostile_decoders', 1 << 28); p.send_request({'do': 'echo'}, b'', 60, 99); "
        "print(p._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"PYTHONPATH": str(root / "tests")}
    completed = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == -signal.SIGKILL
    status = Path(f"/proc/{completed.stdout.strip()}/status")
    until = time.monotonic() + 20
    while status.exists() and not re.search(r"State:\s+Z", status.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
