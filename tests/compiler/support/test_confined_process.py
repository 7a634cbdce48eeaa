"""Decoders are confined: what a file that took one over can do, and what is said of it."""

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
def test_bytes_come_back(start, size):
    process, payload = start(), os.urandom(size)
    for _ in range(2):
        reply, answer = send_request(process, "echo", payload)
        assert reply == {"length": size}
        assert bytes(answer) == payload


@pytest.mark.parametrize(
    ("do", "how"),
    [
        ("crash", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("leave", "status 3"),
        ("flood", "status 0"),
        ("raise", "status 1"),
    ],
)
def test_an_end_without_an_answer_is_told(start, do, how):
    process = start()
    send_request(process, "echo")
    with pytest.raises(DecoderError, match=how):
        send_request(process, do)


def test_a_hang_is_ended(start):
    process = start()
    send_request(process, "echo")
    begin = time.monotonic()
    with pytest.raises(DecoderError, match="took longer than 1 s"):
        send_request(process, "hang", seconds=1)
    assert time.monotonic() - begin < 20


def test_memory_is_bounded(start):
    process = start(128 * MIB)
    assert len(send_request(process, "fill", bytes=16 * MIB)[1]) == 16 * MIB
    with pytest.raises(DecoderError, match="more memory than a decoder may use"):
        send_request(process, "fill", bytes=512 * MIB)


def test_an_answer_is_bounded(start):
    with pytest.raises(DecoderError):
        send_request(start(), "fill", bytes=2 * MIB, max_bytes=MIB)


def test_its_errors_are_text_of_bounded_length(start):
    process = start()
    with pytest.raises(UserError) as raised:
        send_request(process, "refuse")
    (diagnostic,) = raised.value.diagnostics
    assert (diagnostic.code, diagnostic.message, diagnostic.at.file, diagnostic.help) == (
        "E0703", "it is damaged", "x.png", "h",
    )  # fmt: skip
    assert len(diagnostic.label) == 1000
    assert send_request(process, "echo")[0] == {"length": 0}  # it goes on


@pytest.mark.parametrize(
    "errors",
    [3, [], [3], [{}], [{"code": "E0703"}], [[]], None, [dict.fromkeys(
        ("code", "message", "label", "help", "kind", "file", "line", "column"), "x")]],
    ids=str,
)  # fmt: skip
def test_errors_that_are_none_are_an_end(start, errors):
    with pytest.raises(DecoderError, match="reported an invalid error"):
        send_request(start(), "lie", errors=errors)


@linux
def test_there_is_no_network(start):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reply = send_request(start(), "connect", port=port)[0]
    assert reply == {"refused": os.strerror(1)}
    assert send_request(start(), "pair")[0] == {"refused": os.strerror(1)}


@linux
@pytest.mark.parametrize("do", ["run", "write", "append", "unlink", "rename", "chmod"])
def test_nothing_is_run_or_changed(start, tmp_path, do):
    file = tmp_path / "file"
    file.write_text("before")
    file.chmod(0o600)
    assert send_request(start(), do, path=str(file))[0]["refused"]
    assert file.read_text() == "before"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


@linux
def test_no_process_is_ended(start):
    with subprocess.Popen(["sleep", "60"]) as other_process:
        assert send_request(start(), "kill", pid=other_process.pid)[0]["refused"]
        assert other_process.poll() is None
        other_process.kill()


def test_it_takes_no_module_of_the_folder_it_runs_in(tmp_path, monkeypatch, start):
    (tmp_path / "json.py").write_text("import os; os._exit(9)")
    monkeypatch.chdir(tmp_path)
    assert send_request(start(), "echo")[0] == {"length": 0}


def test_threads_and_forks_have_decoders_of_their_own(monkeypatch, root):
    monkeypatch.setenv("PYTHONPATH", str(root / "tests"))
    pool = DecoderPool("hostile_decoders", 256 * MIB, "image")
    wrong = []

    def work(number):
        for size in range(1, 30):
            payload = bytes([number]) * (size * 1000)
            if bytes(pool.send_request({"do": "echo"}, payload, "x", 60, MIB)[1]) != payload:
                wrong.append(number)

    work(0)
    child = os.fork()
    if not child:
        work(1)
        os._exit(bool(wrong))
    threads = [threading.Thread(target=work, args=(number,)) for number in range(2, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not wrong
    assert 1 <= len(pool._idle) <= 4
    pool.close()


def test_a_pool_goes_on_after_a_crash_and_names_the_file(monkeypatch, root):
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
def test_it_ends_with_who_started_it(root):
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
