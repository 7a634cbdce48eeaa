"""One session with every command use, run once under strace for all tests that need it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.request import urlopen

from command_uses import USES, CommandUse, write_inputs
from traced_calls import trace_command

from tcc.compiler.support import user_folders

PROGRAM = "from tcc.compiler.entry import main; main()"
FOLDER, HOME, LOGS, OUTCOMES = "work", "home", "logs", "ends.json"
PATIENCE = 600
"""Seconds allowed per command, including compilation of C libraries on a new machine."""


@dataclass(frozen=True, slots=True)
class UseEnd:
    """Outcome of a command use."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Session:
    """A finished session: its folder, the home folder, and the outcome and log of each use."""

    root: Path
    outcomes: Mapping[str, UseEnd]

    @property
    def folder(self) -> Path:
        """The working folder with all files that the commands wrote."""
        return self.root / FOLDER

    @property
    def home(self) -> Path:
        """The home folder of a user who has only run tcc."""
        return self.root / HOME

    def log(self, use: CommandUse) -> Path:
        """The system calls of a use."""
        return _log(self.root, use)


def make_environment(home: Path) -> dict[str, str]:
    """Return the variables of a user with a new home folder.

    Compiled C libraries and web files are shared. They are built or fetched once for all tests.
    """
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "TCC_CACHE": str(home / ".cache/stages"),
    }


def copy_session(session: Session, root: Path) -> Session:
    """Return a copy of a session in which every use can run again."""
    for name in (FOLDER, HOME):
        shutil.copytree(session.root / name, root / name, symlinks=True)
    for use in USES:
        remove_output(root / FOLDER, use)
    return Session(root, session.outcomes)


def remove_output(folder: Path, use: CommandUse) -> None:
    """Remove outputs that a use would refuse to replace."""
    for name in use.outputs:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def read_session(root: Path) -> Session:
    """Return the session that ran in a folder."""
    outcomes = json.loads((root / OUTCOMES).read_text())
    return Session(root, {line: UseEnd(**end) for line, end in outcomes.items()})


def run_session(root: Path) -> None:
    """Run every use in an empty folder."""
    for name in (FOLDER, HOME, LOGS):
        (root / name).mkdir()
    cache = root / HOME / ".cache"
    cache.mkdir()
    (cache / "tcc").symlink_to(user_folders.prepare_cache_folder("zig").parent)
    write_inputs(root / FOLDER)
    outcomes = {use.line: asdict(_run(root, use)) for use in USES}
    (root / OUTCOMES).write_text(json.dumps(outcomes))


def _run(root: Path, use: CommandUse) -> UseEnd:
    command = trace_command([sys.executable, "-c", PROGRAM, *use.arguments], _log(root, use))
    with subprocess.Popen(
        command,
        cwd=root / FOLDER,
        env=make_environment(root / HOME),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        startup_output = _visit(process) if use.serves else ""
        out, err = process.communicate(timeout=PATIENCE)
    return UseEnd(process.returncode, startup_output + out, err)


def _visit(tracer: "subprocess.Popen[str]") -> str:
    """Open the page that a command serves, end the command, and return its output."""
    assert tracer.stdout
    line = tracer.stdout.readline()
    if line:
        with urlopen(line.strip(), timeout=60) as page:
            assert page.status == 200
        (child,) = Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
    return line


def _log(root: Path, use: CommandUse) -> Path:
    return root / LOGS / f"{USES.index(use):02}.txt"
