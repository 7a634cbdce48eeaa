"""Whether the libraries of a bundle, which others build with, are what its goldens are of."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.bundle import artifact_runs, program_trust, replay
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.data import images
from tcc.compiler.data.dataset import fitting
from tcc.compiler.ir.backend import LibraryLinker, LinkedLibrary
from tcc.compiler.ir.device import Device
from tcc.compiler.support import scratch_folders
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.external_tools import MissingTool


@dataclass(frozen=True, slots=True)
class LibraryCheck:
    """What is known of one library, by its file in the artifact.

    `agreement` is how a program that uses it agrees with the goldens. It is empty where linking
    gave the `same_bytes`, where there is a `problem`, or where the library is `unverified`.
    """

    file: str
    agreement: tuple[Agreement, ...] = ()
    same_bytes: str = ""
    problem: str = ""
    unverified: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong with it; an unverified one says nothing."""
        return not self.problem and all(output.holds for output in self.agreement)


def check(bundle: Bundle, device: Device) -> tuple[LibraryCheck, ...]:
    """Return what is known of each library of a bundle; nothing where its target has none.

    Args:
        bundle: A bundle that was read, whose own program gives its goldens.
        device: Its target.

    Raises:
        Untrusted: It was not built here, and nobody lets it run (E1350).
    """
    linker = device.backend
    if not isinstance(linker, LibraryLinker):
        return ()
    program_trust.check(bundle, device)
    same_tools = device.versions().items() <= bundle.manifest.made_with.items()
    with scratch_folders.folder() as scratch:
        linked = linker.link_libraries(device.target, bundle.model, scratch, same_tools=same_tools)
        return tuple(_check_library(bundle, device, linked_library) for linked_library in linked)


def _check_library(bundle: Bundle, device: Device, library: LinkedLibrary) -> LibraryCheck:
    library_check = LibraryCheck(
        library.file, (), library.same_bytes, library.problem, library.unverified
    )
    if library.program is None:
        return library_check
    try:
        agreement = tuple(_replay(bundle, device, library.program))
    except (UserError, MissingTool) as error:
        reason = str(error).splitlines()[0].removeprefix("error").removeprefix(": ")
        return replace(library_check, problem=f"a program that uses it fails: {reason}")
    return replace(library_check, agreement=agreement)


def _replay(bundle: Bundle, device: Device, program: Path) -> Iterator[Agreement]:
    """Yield how the program in a folder agrees with the goldens, from their images on."""
    cases, source = bundle.manifest.goldens.cases, bundle.input
    if source.preprocess is None:
        tensors = [replay.tensor(bundle, case) for case in cases]
        outputs = device.infer(program, source, tensors)
    else:
        paths = [bundle.folder / case.image for case in cases if case.image]
        pixels = [fitting(images.read(path), source, str(path)) for path in paths]
        outputs = device.run(program, source, pixels)
    for case_outputs in outputs:
        artifact_runs.check_outputs(bundle, case_outputs)
    yield from replay.judged(bundle, device, cases, outputs).agreement
