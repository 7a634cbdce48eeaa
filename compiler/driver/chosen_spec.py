"""Find the spec or bundle that a command or call names, with the project file's defaults."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.support.console import Report, warn_about_spec
from tcc.compiler.support.diagnostics import UserError, fail, make_command_span, make_file_span

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.support.project_file import Project
    from tcc.compiler.zoo.trained import TrainedNetwork


@dataclass(frozen=True)
class ChosenSpec:
    """The spec of a command, and the project with its defaults.

    `is_project_spec`: it is the project's spec, so the project's weights belong to it.
    `is_project_default`: the command line names no spec. `trained` is the zoo's trained network, if
    it is one. `changed`: parameters are set, so its weights may not fit.
    """

    spec: "Spec"
    project: "Project"
    is_project_spec: bool
    trained: "TrainedNetwork | None" = None
    changed: bool = False
    is_project_default: bool = False


def choose_spec(
    name: str | None, settings: Sequence[str] | None, strict: bool = False
) -> ChosenSpec:
    """Return the spec from the command line, or else from the project file.

    Warnings are printed on standard error.

    Args:
        name: The spec as typed: a file, a known name, or None.
        settings: `NAME=VALUE` each.
        strict: Whether warnings are errors.

    Raises:
        UserError: There is no spec, or it is invalid, or, if `strict`, it has warnings.
    """
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.support import project_file
    from tcc.compiler.zoo import shipped, trained

    project = project_file.find_project(Path())
    # Trained networks come before files: `ddsnet-blood` is what `tcc zoo` lists.
    network = trained.find_by_name(name) if name is not None else _find_project_network(project)
    if network:
        is_project_spec = name is None or _find_project_network(project) == network
    else:
        path = (
            shipped.find_spec(name, make_command_span(name))
            if name is not None
            else _find_project_spec(project)
        )
        is_project_spec = name is None or _is_project_spec(path, project)
    # The project's parameters apply only to its own spec; the command line overrides them.
    parameters = {**(project.params if is_project_spec else {}), **parse_settings(settings or ())}
    spec = network.load(parameters) if network else load(path, parameters)
    if strict and spec.warnings:
        raise UserError(tuple(replace(w, severity="error") for w in spec.warnings))
    warn_about_spec(spec.warnings)
    return ChosenSpec(spec, project, is_project_spec, network, bool(parameters), name is None)


def report_project(report: Report, chosen_spec: ChosenSpec, *, weights: bool = False) -> None:
    """Report which settings of a network come from a project file.

    Args:
        report: Receives the note.
        chosen_spec: The spec, and its project.
        weights: Whether weights are used and the command line names none.
    """
    project = chosen_spec.project
    choices = [f"the spec {project.spec}"] if chosen_spec.is_project_default else []
    if chosen_spec.is_project_spec and project.params:
        choices.append(f"the parameters {', '.join(project.params)}")
    if chosen_spec.is_project_spec and weights and project.weights:
        choices.append(f"the weights {project.weights}")
    if choices:
        report.print_note(f"{project.path} sets {', '.join(choices)}")


def _find_project_spec(project: "Project") -> Path:
    """Return the spec that a project file names."""
    from tcc.compiler.zoo import shipped

    if project.spec is None:
        help = "name a spec, such as `ddsnet`, or set `spec = ...` in tcc.toml"
        raise fail("E0608", "no spec was given", make_file_span("command line"), help=help)
    return shipped.find_spec(project.spec, project.spans["spec"], project.folder)


def _find_project_network(project: "Project") -> "TrainedNetwork | None":
    """Return the trained network that a project file names; None if it names none."""
    from tcc.compiler.zoo import trained

    return trained.find_by_name(project.spec, project.folder) if project.spec else None


def _is_project_spec(path: Path, project: "Project") -> bool:
    """Whether a file is the spec that a project file names."""
    try:
        return (
            not _find_project_network(project)
            and path.resolve() == _find_project_spec(project).resolve()
        )
    except UserError:
        return False


def parse_settings(settings: Sequence[str]) -> Mapping[str, str]:
    """Return the values of `--set` by parameter.

    Raises:
        UserError: A setting is not `name=value`, or a name occurs twice (E0601).
    """
    values_by_name: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        at = make_command_span(f"--set {setting}")
        if not equals or not name.strip().isidentifier():
            message, help = "a setting must have the form `name=value`", "such as --set classes=5"
            raise fail("E0601", message, at, help=help)
        if name.strip() in values_by_name:
            raise fail("E0601", f"`{name.strip()}` is set twice", at)
        values_by_name[name.strip()] = value.strip()
    return values_by_name


def find_bundle_folder(name: str | None) -> Path | None:
    """Return the bundle folder that a user named; None if the name is not a folder, or is a spec.

    Raises:
        UserError: It is a folder, but neither a bundle nor the name of a known spec (E0620).
    """
    from tcc.compiler.support import atomic_files

    if not name:
        return None
    folder = Path(name)
    if not (os.path.isfile(folder) or _has_manifest(folder)):
        atomic_files.restore_folder(folder)  # waits for a process that replaces the folder
    if _has_manifest(folder):
        return folder
    if os.path.isdir(folder) and not _is_known(name):
        from tcc.compiler.bundle import bundle_path_errors

        raise bundle_path_errors.build_missing_error(folder)
    return None


def _is_known(name: str) -> bool:
    from tcc.compiler.zoo import shipped, trained

    return name in shipped.list_specs() or trained.find_by_name(name) is not None


def _has_manifest(folder: Path) -> bool:
    # `Path.is_file` raises if a name is too long for the system.
    return os.path.isfile(folder / "manifest.json")


def rename_network(spec: "Spec", name: str | None) -> "Spec":
    """Return a spec with the network renamed by the command line; unchanged without a name.

    Raises:
        UserError: It is not a valid network name (E0629).
    """
    from tcc.compiler.frontend.language_schema import NETWORK_NAME

    if name is None:
        return spec
    if not re.fullmatch(NETWORK_NAME, name):
        help = "start with a letter, then letters, digits, `_`, `.` and `-`; at most 64 characters"
        message = f"`{name[:80]}` is not a valid network name"
        raise fail("E0629", message, make_command_span(f"--name {name}"), help=help)
    return replace(spec, name=name, graph=replace(spec.graph, name=name))
