"""Zig from PyPI as C compiler, assembler, archiver and linker for all processors."""

import errno
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tcc.compiler.support import external_tools, user_folders
from tcc.compiler.support.external_tools import MissingTool, Tool

COMPILE_OPTIONS = (
    "-std=gnu11", "-O2", "-g0", "-fPIC", "-ffp-contract=off", "-fno-sanitize=all",
    "-Wall", "-Wextra",
)  # fmt: skip
"""Options for C and assembly. C code must not fuse a product and a sum into one rounding."""
TIMEOUT_SECONDS = 1800
"""Time limit of one call in seconds; the first call builds C libraries into the cache."""


class ZigError(Exception):
    """Zig failed on generated sources: a defect of tcc, or a full disk."""


def get_cache_folder() -> Path:
    """Return the folder where zig caches its C libraries.

    Raises:
        OSError: There is no home folder, and the folder for temporary files belongs to another
            user.
    """
    return user_folders.prepare_cache_folder("zig")


def get_marker_path(arch: str) -> Path:
    """Return the file whose existence means that zig has built an architecture's C libraries."""
    return get_cache_folder() / f"{arch}-{version('ziglang')}.built"


def run(folder: Path, command: str, *options: str) -> None:
    """Run `zig <command> <options>` in a folder, so that all paths can be relative.

    Raises:
        MissingTool: Zig is not installed.
        ZigError: Zig fails or times out.
        OSError: The disk is full.
    """
    if external_tools.installed_version("ziglang") is None:
        raise MissingTool(Tool("ziglang", "compile and link", None))
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(get_cache_folder()),
        # Removed with the folder, also after zig was killed.
        "ZIG_LOCAL_CACHE_DIR": str(folder / ".zig"),
        "SOURCE_DATE_EPOCH": "0",
        "TMPDIR": str(folder),
    }
    arguments = [sys.executable, "-m", "ziglang", command, *options]
    try:
        subprocess.run(
            arguments, cwd=folder, env=environment, check=True, timeout=TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        output = error.stdout.decode(errors="replace").strip()
        if "NoSpaceLeft" in output or os.strerror(errno.ENOSPC) in output:
            full_disk = min(
                (folder, get_cache_folder()), key=lambda path: shutil.disk_usage(path).free
            )
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(full_disk)) from None
        raise ZigError(f"zig {command} failed:\n{output[-4000:]}") from None
    except subprocess.TimeoutExpired:
        raise ZigError(f"zig {command} did not end within {TIMEOUT_SECONDS} seconds") from None
