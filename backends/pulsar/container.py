"""Runs the vendor tools in docker: finds an image, and compiles a package with it."""

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
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.progress import Progress

LIST_SECONDS, COMPILE_SECONDS, STOP_SECONDS = 10, 6 * 3600, 10
"""Time limits: docker lists images, the tool compiles, and both stop after a signal."""
MAX_LOG_CHARS = 2000
"""Characters from the end of a log that an error quotes."""


@dataclass(frozen=True, slots=True)
class ToolImage:
    """The tool's newest image by its tag, or the reason why there is none."""

    name: str
    missing_reason: str = ""


def find_image(tool: NpuTool) -> ToolImage:
    """Return the tool's newest docker image, if there is one."""
    docker = shutil.which("docker")
    if docker is None:
        return ToolImage("", "docker is not on PATH")
    command = [docker, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]
    try:
        listing = subprocess.run(command, capture_output=True, timeout=LIST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return ToolImage("", f"docker did not answer within {LIST_SECONDS} seconds")
    except OSError as error:
        return ToolImage("", f"docker cannot be started: {error.strerror}")
    if listing.returncode:
        error_lines = listing.stderr.decode(errors="replace").strip().splitlines()
        return ToolImage(
            "", f"docker failed: {(error_lines or ['it gave no reason'])[-1][:MAX_LOG_CHARS]}"
        )
    names = (line.strip() for line in listing.stdout.decode(errors="replace").splitlines())
    tool_images = (name for name in names if name.rpartition(":")[0] in tool.images)
    newest = max(tool_images, key=_make_version_key, default="")
    return ToolImage(newest, "" if newest else f"docker has no image of {tool.name}")


def _make_version_key(name: str) -> tuple[str | int, ...]:
    """Return a key that sorts names like `sort -V` in `build.sh`: 9.9 before 10.1."""
    # Every second part is a number, so parts at the same position have the same type.
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))


def compile_package(
    tool: NpuTool,
    image: str,
    files: Mapping[str, bytes],
    outputs: Iterable[str],
    progress: Progress,
) -> Mapping[str, bytes]:
    """Return the tool's outputs for a package: its result, its log, and existing `outputs`.

    Raises:
        UserError: The tool fails (E0672); the error has the end of its log.
    """
    progress(tool.name, 0, 1)
    with atomic_files.create_scratch_folder() as folder:
        package, output_folder = folder / "package", folder / "out"
        for name, content in files.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_bytes(content)
        log_text = _run(
            ["sh", str(package / "build.sh"), str(output_folder)], image, folder / "said"
        )
        if not (output_folder / tool.output_file).is_file():
            raise _make_compile_error(tool, image, log_text)
        output_paths = (tool.output_file, scripts.LOG, *outputs)
        try:
            compiled_files = {
                path: (output_folder / path).read_bytes()
                for path in output_paths
                if (output_folder / path).is_file()
            }
        except OSError as error:
            raise _make_compile_error(
                tool, image, f"cannot read its output files: {error.strerror}"
            ) from error
    progress(tool.name, 1, 1)
    return compiled_files


def _make_compile_error(tool: NpuTool, image: str, log_text: str) -> UserError:
    message = f"{tool.name} did not compile the package"
    help = "the package is complete; add `--no-tool` to write it without compiling it"
    return fail(
        "E0672", message, make_file_span(image), label=log_text[-MAX_LOG_CHARS:].strip(), help=help
    )


def _run(command: list[str], image: str, log_path: Path) -> str:
    """Run a command until it ends or times out, and return the end of its output."""
    timeout_text = ""
    with log_path.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"IMAGE": image},
            # A session of its own: a keyboard interrupt then reaches tcc first, which stops
            # every process that docker's client started.
            start_new_session=True,
        )
        try:
            process.wait(COMPILE_SECONDS)
        except subprocess.TimeoutExpired:
            timeout_text = f"\nit did not end within {COMPILE_SECONDS // 3600} hours"
        finally:
            _stop_process(process)
    with log_path.open("rb") as stream:
        # These logs have megabytes of progress bars; the reason for a failure is at the end.
        # A character has at most four bytes.
        stream.seek(max(0, log_path.stat().st_size - 4 * MAX_LOG_CHARS))
        return stream.read().decode(errors="replace") + timeout_text


def _stop_process(process: "subprocess.Popen[bytes]") -> None:
    """Stop a command and every process it started; `build.sh` removes docker's container."""
    with suppress(ProcessLookupError):  # every process has ended
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
