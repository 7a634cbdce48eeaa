"""Links programs with an artifact's libraries, to check that these match its own program.

Linking is reproducible: a program linked with `libNAME.a` is `NAME-run` byte for byte, and the
object in `libNAME.a` links to `libNAME.so`. If the bytes differ, the linked program is run instead.

The library of an unsigned program runs in a program without the signature check. That program is
linked in a scratch folder from the artifact's object and sources, and deleted with the folder: no
program in a bundle can skip its check.
"""

import shutil
import struct
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from tcc.backends.arm.codegen import elf_symbols, link, runner_signature, zig
from tcc.backends.arm.codegen.zig import ZigError
from tcc.backends.arm.machine import PROGRAM_SUFFIX, Machine
from tcc.compiler.ir.backend import LinkedLibrary
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, make_file_span

RUNNER = Path("src/runner.c")


def link_all(
    machine: Machine, folder: Path, scratch: Path, *, same_tools: bool
) -> Iterator[LinkedLibrary]:
    """Yield the result of linking with each library; arguments as for `LibraryLinker`."""
    name = _find_name(folder)
    archive, static_folder = f"lib{name}.a", scratch / "static"
    exports: tuple[str, ...] = ()
    try:
        _copy_sources(folder, static_folder, name, archive)
        exports = _extract_object(static_folder, name)
        link.link_program(static_folder, machine, name)
        yield _compare_static(machine, folder, static_folder, name)
    except (ZigError, _NoObjectError) as error:
        yield LinkedLibrary(archive, problem=f"no program links with it: {_find_error(error)}")
    if machine.native:
        yield _link_with_shared(machine, folder, scratch / "dynamic", name)
    elif exports:
        yield _compare_shared(machine, folder, static_folder, exports, same_tools=same_tools)
    else:
        reason = f"it is checked against {archive}, which is broken"
        yield LinkedLibrary(f"lib{name}.so", unverified=reason)


def _link_with_shared(machine: Machine, folder: Path, workspace: Path, name: str) -> LinkedLibrary:
    """Link a program that loads the shared library."""
    shared = f"lib{name}.so"
    try:
        _copy_sources(folder, workspace, name, shared)
        remove_check(workspace)
        link.link_loader(workspace, machine, name)
    except (ZigError, _NoObjectError) as error:
        return LinkedLibrary(shared, problem=f"no program links with it: {_find_error(error)}")
    return LinkedLibrary(shared, program=workspace)


def _compare_shared(
    machine: Machine,
    folder: Path,
    static_folder: Path,
    exports: tuple[str, ...],
    *,
    same_tools: bool,
) -> LinkedLibrary:
    """Compare the shared library with the archive's object, because it cannot be loaded here."""
    name = _find_name(folder)
    shared, archive = f"lib{name}.so", f"lib{name}.a"
    link.link_shared(static_folder, machine, name, exports)
    if not (folder / shared).exists():
        return LinkedLibrary(shared, problem="it is missing from the artifact")
    if _read_bytes(static_folder / shared) == _read_bytes(folder / shared):
        return LinkedLibrary(
            shared, same_bytes=f"it equals the library linked from the object in {archive}"
        )
    if same_tools:
        return LinkedLibrary(
            shared, problem=f"it differs from the library linked from the object in {archive}"
        )
    reason = (
        f"the ziglang here, {version('ziglang')}, links different bytes, and this machine cannot "
        "load it"
    )
    return LinkedLibrary(shared, unverified=reason)


class _NoObjectError(Exception):
    """A file of the artifact is missing, or an archive contains no object file of tcc."""


def _extract_object(workspace: Path, name: str) -> tuple[str, ...]:
    """Extract the object from the archive; return its global symbols."""
    zig.run(workspace, "ar", "x", f"lib{name}.a")
    try:
        return tuple(elf_symbols.list_global_symbols(_read_bytes(workspace / f"{name}.o")))
    except (OSError, struct.error, LookupError, ValueError, StopIteration) as error:
        raise _NoObjectError(f"the archive has no valid object file {name}.o") from error


def link_unsigned(machine: Machine, folder: Path, workspace: Path) -> Path:
    """Link a program without the signature check with an artifact's archive; return its path.

    Raises:
        UserError: The program does not link (E0652).
    """
    name = _find_name(folder)
    archive = f"lib{name}.a"
    try:
        _copy_sources(folder, workspace, name, archive)
        _extract_object(workspace, name)
        return _link_without_check(machine, workspace, name)
    except (ZigError, _NoObjectError) as error:
        message = f"cannot link a program with {archive}"
        raise fail(
            "E0652", message, make_file_span(str(folder)), label=_find_error(error)
        ) from error


def _compare_static(machine: Machine, folder: Path, workspace: Path, name: str) -> LinkedLibrary:
    """Compare a program linked with the archive with the artifact's own program."""
    library, program = f"lib{name}.a", f"{name}{PROGRAM_SUFFIX}"
    if _read_bytes(workspace / program) == _read_bytes(folder / program):
        return LinkedLibrary(library, same_bytes=f"a program linked with it equals {program}")
    if runner_signature.find(folder):
        # The signature is only valid for the artifact's own program.
        _link_without_check(machine, workspace, name)
    return LinkedLibrary(library, program=workspace)


def _copy_sources(folder: Path, workspace: Path, name: str, library: str) -> None:
    """Copy the files that a program is built from."""
    (workspace / "src").mkdir(parents=True)
    try:
        sources = {path.relative_to(folder) for path in (folder / "src").iterdir()}
        for path in (Path(f"{name}.h"), Path(library), *sorted({RUNNER, *sources})):
            shutil.copyfile(folder / path, workspace / path)
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).relative_to(folder)
        raise _NoObjectError(f"{missing} is missing from the artifact") from error


def _find_name(folder: Path) -> str:
    """Return the name of an artifact's model, from the name of its program."""
    (program,) = folder.glob(f"*{PROGRAM_SUFFIX}")
    return program.name.removesuffix(PROGRAM_SUFFIX)


def _read_bytes(path: Path) -> bytes:
    with regular_files.open_file(path) as file:
        return file.read()


def _find_error(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "error" in line] or str(error).splitlines()
    return lines[0][:160]


NO_CHECK = "static void check_signature(void) {}\n"
"""The replacement of the signature check."""


def remove_check(workspace: Path) -> None:
    """Replace the signature check in a workspace's sources, if they have one."""
    header = workspace / "src" / runner_signature.CHECK_HEADER
    if header.exists():
        header.write_text(NO_CHECK, "utf-8")
        for unit in runner_signature.UNITS:
            (workspace / "src" / unit).unlink()


def _link_without_check(machine: Machine, workspace: Path, name: str) -> Path:
    """Link `NAME.o` in a workspace with a runner without the check; return the program.

    Raises:
        ZigError: The program does not link.
    """
    remove_check(workspace)
    link.link_program(workspace, machine, name)
    return workspace / f"{name}{PROGRAM_SUFFIX}"
