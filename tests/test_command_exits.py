"""How every command ends: after a signal, with a closed output pipe, and without memory."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest
from command_session import copy_session, make_environment, remove_output
from command_uses import USES
from test_network import session  # noqa: F401 - a fixture

PROGRAM = "from tcc.compiler.entry import main; main()"
RUNS = [command_use for command_use in USES if not command_use.serves]
LITTLE, MUCH = 150_000 * 1024, 1 << 33
"""Address space in bytes. `ulimit -v 150000` gives the first."""
SIGNALLED = """
import os, signal, sys
left = int(sys.argv.pop(1))
class Count:
    # Asked before each module is imported: the signal comes at the same place each time.
    def find_spec(self, name, path=None, target=None):
        global left
        left -= 1
        if left == 0:
            open("signalled", "w").close()
            os.kill(os.getpid(), signal.SIGTERM)
from tcc.compiler.entry import main
sys.meta_path.insert(0, Count())
main()
"""


def limit_memory(size):
    """Return a command prefix that limits the address space."""
    return ("prlimit", f"--as={size}")


@dataclass(frozen=True)
class End:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def copy(session, tmp_path_factory):  # noqa: F811
    return copy_session(session, tmp_path_factory.mktemp("copy"))


@pytest.fixture
def run(copy):
    """Run a use in the folder of the session."""

    def run(use, program=PROGRAM, arguments=(), command_prefix=(), **options):
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        completed = subprocess.run(
            [*command_prefix, sys.executable, "-c", program, *arguments, *use.repeat_arguments], cwd=copy.folder,
            env=make_environment(copy.home), stdin=subprocess.DEVNULL, text=True, check=False, **streams,
        )  # fmt: skip
        remove_output(copy.folder, use)
        return End(completed.returncode, completed.stdout or "", completed.stderr)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("command_use", RUNS, ids=str)
@pytest.mark.parametrize("module_count", [150, 900])
def test_a_signal_ends_a_command_with_its_exit_code(run, copy, command_use, module_count):
    """The signal comes during the imports of the command line or of the command."""
    (copy.folder / "signalled").unlink(missing_ok=True)
    end = run(command_use, SIGNALLED, [str(module_count)])
    signalled = (copy.folder / "signalled").exists()
    assert signalled or module_count == 900
    assert end.code == (143 if signalled else 0), end.err
    assert "Traceback" not in end.err
    assert not signalled or not re.search(r"\berror[:\[]", end.err)


@pytest.mark.slow
@pytest.mark.parametrize("command_use", RUNS, ids=str)
def test_a_closed_output_pipe_fails_no_command(run, command_use):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        end = run(command_use, stdout=writer)
    finally:
        os.close(writer)
    assert end.code == 0, end.err
    assert "Traceback" not in end.err
    assert "ipe" not in end.err


@pytest.mark.slow
@pytest.mark.parametrize("command_use", RUNS, ids=str)
def test_out_of_memory_is_reported_as_such(run, command_use):
    end = run(command_use, command_prefix=limit_memory(LITTLE))
    if end.code:
        assert (end.code, "error[E1402]: there is not enough memory" in end.err) == (1, True), end
    assert "internal error" not in end.err
    assert "Traceback" not in end.err
    assert end.code or command_use.arguments[0] not in {
        "train",
        "calibrate",
        "run",
        "eval",
        "verify",
        "bench",
    }


ABORTING = """
import os, signal, time
from tcc.compiler.cli import app
from importlib import import_module
import_module("tcc.compiler.cli.app").create_minimal_application = lambda words: {action}
from tcc.compiler.entry import main
main()
"""


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("os.abort", 1),  # an uncaught C++ exception
        ("lambda: os._exit(1)", 1),  # OpenBLAS
        ("lambda: bytearray(1 << 40)", 1),
        ("lambda: exit(4)", 4),
        ("lambda: os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("lambda: os.kill(os.getpid(), signal.SIGKILL)", -9),
    ],
)
def test_library_aborts_under_a_memory_limit_are_reported(tmp_path, action, code):
    completed = subprocess.run(
        [*limit_memory(MUCH), sys.executable, "-c", ABORTING.format(action=action), "targets", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert completed.returncode == code, completed.stderr
    assert ("error[E1402]" in completed.stderr) == (code == 1)
    assert ('"exit": 1' in completed.stdout) == (code == 1)
    assert "8,192 MiB" in completed.stderr or code != 1


def test_a_signal_during_native_code_ends_a_command(tmp_path):
    program = (
        "import ctypes, os, signal\n"
        "from tcc.compiler.support import process_setup\n"
        "process_setup.GRACE_SECONDS = 0.5\n"
        "process_setup.catch_signals()\n"
        "ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGTERM))()\n"
        "while True: pass\n"
    )
    command = [sys.executable, "-c", program]
    completed = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert completed.returncode == 143


def test_an_import_error_caused_by_a_signal_is_not_reported(tmp_path):
    """During a native import, an exception of a signal handler becomes an ImportError."""
    program = (
        "import os, signal\n"
        "from importlib import import_module\n"
        "def interrupted():\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except SystemExit:\n        raise ImportError('initialization failed')\n"
        "import_module('tcc.compiler.cli.app').COMMANDS['targets'] = interrupted\n"
        "from tcc.compiler.entry import main\n"
        "main()\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program, "targets"], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (completed.returncode, completed.stderr) == (143, "")


def test_a_signal_is_forwarded_under_a_memory_limit(tmp_path):
    # Short sleeps: a signal that comes just before `signal.pause` would never end it.
    waiting = "[time.sleep(0.01) for _ in range(6000)]"
    program = ABORTING.format(action=f"lambda: (print('here', flush=True), {waiting})")
    with subprocess.Popen(
        [*limit_memory(MUCH), sys.executable, "-c", program, "targets"], stdout=subprocess.PIPE,
        text=True, cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
