"""The tools in docker: whether an image is here, and a package compiled by it."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tcc.backends.pulsar import scripts
from tcc.backends.pulsar.scripts import NpuTool
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.progress import Progress

LOOK, COMPILE, LEAVE = 10, 6 * 3600, 10
"""Seconds that docker gets to list images, the tool to compile, and both to end when told to."""
SAID = 2000
"""Characters of a log's end that an error has."""


@dataclass(frozen=True, slots=True)
class ToolImage:
    """The tool's image, the newest by its tag; without one, why there is none."""

    name: str
    absent: str = ""


def image(tool: NpuTool) -> ToolImage:
    """Return the tool's image, if docker has one."""
    docker = shutil.which("docker")
    if docker is None:
        return ToolImage("", "docker is not here")
    command = [docker, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]
    try:
        found = subprocess.run(command, capture_output=True, timeout=LOOK, check=False)
    except subprocess.TimeoutExpired:
        return ToolImage("", f"docker did not answer within {LOOK} seconds")
    except OSError as error:
        return ToolImage("", f"docker cannot be started: {error.strerror}")
    if found.returncode:
        said = found.stderr.decode(errors="replace").strip().splitlines()
        return ToolImage("", f"docker failed: {(said or ['it does not say why'])[-1][:SAID]}")
    names = (line.strip() for line in found.stdout.decode(errors="replace").splitlines())
    own = (name for name in names if name.rpartition(":")[0] in tool.images)
    newest = max(own, key=_version, default="")
    return ToolImage(newest, "" if newest else f"docker has no image of {tool.name}")


def _version(name: str) -> tuple[str | int, ...]:
    """Return a key that sorts names as `sort -V` does, which `build.sh` uses: 9.9 before 10.1."""
    # Every second part is a number, so that parts of one place are of one type.
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def compiled(
    tool: NpuTool,
    image: str,
    files: Mapping[str, bytes],
    outputs: Iterable[str],
    progress: Progress,
) -> Mapping[str, bytes]:
    """Return what the tool makes of a package: its result, its log, and those `outputs` there are.

    Raises:
        UserError: The tool fails (E0672), with its last words.
    """
    progress(tool.name, 0, 1)
    with atomic_files.scratch_folder() as folder:
        package, out = folder / "package", folder / "out"
        for name, data in files.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_bytes(data)
        said = _run(["sh", str(package / "build.sh"), str(out)], image, folder / "said")
        if not (out / tool.result).is_file():
            raise _failed(tool, image, said)
        kept = (tool.result, scripts.LOG, *outputs)
        try:
            made = {path: (out / path).read_bytes() for path in kept if (out / path).is_file()}
        except OSError as error:
            raise _failed(tool, image, f"cannot read what it made: {error.strerror}") from error
    progress(tool.name, 1, 1)
    return made


def _failed(tool: NpuTool, image: str, said: str) -> UserError:
    message = f"{tool.name} did not compile the package"
    help = "the package itself is well: `--no-tool` writes it without compiling"
    return fail("E0672", message, whole_file(image), label=said[-SAID:].strip(), help=help)


def _run(command: list[str], image: str, said: Path) -> str:
    """Run a command to its end, however that comes, and return the end of what it said."""
    late = ""
    with said.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"IMAGE": image},
            # A session of its own, so that an interrupt at the keyboard reaches us first, and all
            # that docker's client started can be ended together.
            start_new_session=True,
        )
        try:
            process.wait(COMPILE)
        except subprocess.TimeoutExpired:
            late = f"\nit did not end within {COMPILE // 3600} hours"
        finally:
            _end(process)
    with said.open("rb") as stream:
        # Logs of these tools run to megabytes of progress bars; why it failed stands at the end.
        # Four bytes are the most that a character takes.
        stream.seek(max(0, said.stat().st_size - 4 * SAID))
        return stream.read().decode(errors="replace") + late


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a command and all that it started; `build.sh` has docker remove its container."""
    with suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + LEAVE
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
