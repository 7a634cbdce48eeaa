"""Check that the libraries in a bundle, for use in other builds, give its goldens."""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.bundle import artifact_runs, replay
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_folder import MODEL, Bundle
from tcc.compiler.data import images
from tcc.compiler.data.dataset import check_image
from tcc.compiler.ir.backend import LibraryLinker, LinkedLibrary
from tcc.compiler.ir.constant_checker import (
    ConstantCheck,
    ConstantChecker,
    ConstantDifference,
    ConstantSources,
)
from tcc.compiler.ir.device import Device
from tcc.compiler.support import atomic_files, regular_files
from tcc.compiler.support.diagnostics import Diagnostic, UserError, make_file_span
from tcc.compiler.support.external_tools import MissingTool


@dataclass(frozen=True, slots=True)
class LibraryCheck:
    """Result for one library, by its file in the artifact.

    `agreement` compares a program that links the library with the goldens. It is empty if linking
    gave the `same_bytes`, if there is a `problem`, or if the library is `unverified`.
    """

    file: str
    agreement: tuple[Agreement, ...] = ()
    same_bytes: str = ""
    problem: str = ""
    unverified: str = ""

    @property
    def holds(self) -> bool:
        """Whether the check found no problem; an unverified library passes."""
        return not self.problem and all(output.holds for output in self.agreement)


def check(bundle: Bundle, device: Device) -> tuple[LibraryCheck, ...]:
    """Check each library of a bundle; empty if its target has none.

    Args:
        bundle: A bundle that was read and whose own program gives its goldens.
        device: Its target.

    Raises:
        Untrusted: It was not built here, and is not allowed to run (E1350).
    """
    linker = device.backend
    if not isinstance(linker, LibraryLinker):
        return ()
    artifact_runs.check_trust(bundle, device)
    same_tools = device.collect_versions().items() <= bundle.manifest.made_with.items()
    with atomic_files.create_scratch_folder() as scratch:
        linked = linker.link_libraries(device.target, bundle.model, scratch, same_tools=same_tools)
        return tuple(_check_library(bundle, device, linked_library) for linked_library in linked)


def _check_library(bundle: Bundle, device: Device, library: LinkedLibrary) -> LibraryCheck:
    library_check = LibraryCheck(
        library.file, (), library.same_bytes, library.problem, library.unverified
    )
    if library.program is None:
        return library_check
    try:
        agreement = tuple(_replay_goldens(bundle, device, library.program))
    except (UserError, MissingTool) as error:
        reason = str(error).splitlines()[0].removeprefix("error").removeprefix(": ")
        return replace(library_check, problem=f"a program that uses it fails: {reason}")
    return replace(library_check, agreement=agreement)


def _replay_goldens(bundle: Bundle, device: Device, program: Path) -> Iterator[Agreement]:
    """Yield how the program in a folder agrees with the goldens, starting from their images."""
    cases, network_input = bundle.manifest.goldens.cases, bundle.input
    if network_input.preprocess is None:
        tensors = [replay.read_input_tensor(bundle, case) for case in cases]
        outputs = device.infer(program, network_input, tensors)
    else:
        paths = [bundle.folder / case.image for case in cases if case.image]
        pixels = [check_image(images.read_image(path), network_input, str(path)) for path in paths]
        outputs = device.run(program, network_input, pixels)
    for case_outputs in outputs:
        artifact_runs.check_outputs(bundle, case_outputs)
    yield from replay.compare_goldens(bundle, device, cases, outputs).agreement


def check_operating_points(bundle: Bundle, device: Device) -> None:
    """Refuse an artifact whose files have other operating points than the manifest.

    Raises:
        UserError: They differ (E0622); each such file is listed.
    """
    points = bundle.manifest.operating_points
    problems = []
    for name, content in device.encode_operating_points(bundle.model, points).items():
        path = bundle.model / name
        if not points and not path.exists():  # a bundle of an older version, without this file
            continue
        if not path.exists() or regular_files.read_file(path) != content:
            message = "the temperature or thresholds in this file differ from the manifest"
            help = "build the bundle again, then fit again with `tcc eval --fit`"
            problems.append(
                Diagnostic("E0622", message, make_file_span(f"{MODEL}/{name}"), help=help)
            )
    if problems:
        raise UserError(tuple(problems))


_NAME_END = re.compile(r"[:/]|_*\Z")
"""Where a layer's name may end in the name of an operator."""


def check_constants(
    bundle: Bundle, device: Device, sources: ConstantSources | None
) -> tuple[ConstantCheck, ...] | None:
    """Compare the constants of each file of an artifact; None if its sources are unknown.

    Args:
        bundle: The bundle.
        device: Its target.
        sources: The models that it was built from, if known.

    Raises:
        MissingTool: The tool that reads the artifact's files is not installed.
        UserError: A file cannot be read.
    """
    checker = device.backend
    unknown = sources is None or (sources.float_model, sources.integer_program) == (None, None)
    if not isinstance(checker, ConstantChecker) or sources is None or unknown:
        return None
    models = [model for model in (sources.float_model, sources.integer_program) if model]
    layers = {node.name for model in models for node in model.graph.nodes}
    checks = checker.check_constants(device.target, bundle.model, sources)
    return tuple(_name_layers(check_constants, layers) for check_constants in checks)


def _name_layers(check_constants: ConstantCheck, layers: Container[str]) -> ConstantCheck:
    differences = (_name_layer(difference, layers) for difference in check_constants.differences)
    return replace(check_constants, differences=tuple(differences))


def _name_layer(difference: ConstantDifference, layers: Container[str]) -> ConstantDifference:
    """Return a difference with the layer of its operator: `fc:x/y` belongs to `fc`."""
    operator = difference.layer
    stems = [operator[: end.start()] for end in _NAME_END.finditer(operator)]
    layer = next((stem for stem in reversed(stems) if stem in layers), operator)
    return replace(difference, layer=layer)
