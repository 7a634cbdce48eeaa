"""The tools in docker: whether an image is here, and a package compiled by it."""

import os
import shutil
import subprocess
from collections.abc import Mapping

from tcc.backends.pulsar import scripts
from tcc.backends.pulsar.scripts import NpuTool
from tcc.compiler.support import scratch_folders
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress

LOOK, COMPILE = 10, 6 * 3600
"""Seconds that docker gets to list images, and the tool to compile."""
SAID = 2000
"""Characters of a log's end that an error has."""


def image(tool: NpuTool) -> str | None:
    """Return the tool's image, the newest by its tag; None without docker, or without an image."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    command = [docker, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=LOOK, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    names = (line.strip() for line in found.stdout.splitlines())
    return max((n for n in names if n.rpartition(":")[0] in tool.images), default=None)


def compiled(
    tool: NpuTool, image: str, files: Mapping[str, bytes], progress: Progress
) -> Mapping[str, bytes]:
    """Return what the tool makes of a package: its result, its log, and what it gave for goldens.

    Raises:
        UserError: The tool fails (E0672), with its last words.
    """
    progress(tool.name, 0, 1)
    with scratch_folders.folder() as folder:
        package, out = folder / "package", folder / "out"
        for name, data in files.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_bytes(data)
        command = ["sh", str(package / "build.sh"), str(out)]
        said = _run(command, image)
        if not (out / tool.result).is_file():
            message = f"{tool.name} did not compile the package"
            help = "the package itself is well: `--no-tool` writes it without compiling"
            raise fail("E0672", message, whole_file(image), label=said[-SAID:].strip(), help=help)
        kept = [out / tool.result, out / scripts.LOG, *sorted((out / "gt").rglob("*.bin"))]
        made = {path.relative_to(out).as_posix(): path.read_bytes() for path in kept}
    progress(tool.name, 1, 1)
    return made


def _run(command: list[str], image: str) -> str:
    try:
        found = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=COMPILE,
            check=False,
            env=os.environ | {"IMAGE": image},
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        return f"{said.decode(errors='replace')}\nit did not end within {COMPILE // 3600} hours"
    return found.stdout.decode(errors="replace")
