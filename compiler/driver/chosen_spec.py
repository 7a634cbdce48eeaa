"""The spec that a command or call names, or else the project file's; and whether it is a bundle."""

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
    """The spec that a command works on, and the project whose defaults hold.

    `is_project_spec` says that it is the project's spec, so that its weights belong to it, and
    `is_project_default` that the project names it where the command line does not. `trained` is the
    trained network of the zoo that it is, `changed` whether settings make it another.
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
    """Return the spec that the command line names, or else the project file.

    What is doubtful about it is said on standard error.

    Args:
        name: The spec as typed: a file, a known name, or nothing.
        settings: `NAME=VALUE` each.
        strict: Whether what is doubtful is an error.

    Raises:
        UserError: There is none, or it is wrong; or, if `strict`, it is doubtful.
    """
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.support import project_file
    from tcc.compiler.zoo import shipped, trained

    project = project_file.find_project(Path())
    # A trained network's name comes before a file's: `ddsnet-blood` is what `tcc zoo` lists.
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
    # The project's parameters are for its own spec; what is typed leads.
    parameters = {**(project.params if is_project_spec else {}), **parse_settings(settings or ())}
    spec = network.load(parameters) if network else load(path, parameters)
    if strict and spec.warnings:
        raise UserError(tuple(replace(w, severity="error") for w in spec.warnings))
    warn_about_spec(spec.warnings)
    return ChosenSpec(spec, project, is_project_spec, network, bool(parameters), name is None)


def report_project(report: Report, chosen_spec: ChosenSpec, *, weights: bool = False) -> None:
    """Say what a project file chooses of a network, and which file that is.

    Args:
        report: Where it is told.
        chosen_spec: The spec, and the project that it may come from.
        weights: Whether weights are taken, and the command line names none.
    """
    project = chosen_spec.project
    choices = [f"the spec {project.spec}"] if chosen_spec.is_project_default else []
    if chosen_spec.is_project_spec and project.params:
        choices.append(f"the parameters {', '.join(project.params)}")
    if chosen_spec.is_project_spec and weights and project.weights:
        choices.append(f"the weights {project.weights}")
    if choices:
        report.print_note(f"{project.path} chooses {', '.join(choices)}")


def _find_project_spec(project: "Project") -> Path:
    """Return the spec that a project file names."""
    from tcc.compiler.zoo import shipped

    if project.spec is None:
        help = "name a spec, such as `ddsnet`, or say `spec = ...` in tcc.toml"
        raise fail("E0608", "which spec?", make_file_span("command line"), help=help)
    return shipped.find_spec(project.spec, project.spans["spec"], project.folder)


def _find_project_network(project: "Project") -> "TrainedNetwork | None":
    """Return the trained network that a project file names, if it names one."""
    from tcc.compiler.zoo import trained

    return trained.find_by_name(project.spec, project.folder) if project.spec else None


def _is_project_spec(path: Path, project: "Project") -> bool:
    """Whether a file is the spec that a project file names, if there is one."""
    try:
        return (
            not _find_project_network(project)
            and path.resolve() == _find_project_spec(project).resolve()
        )
    except UserError:
        return False


def parse_settings(settings: Sequence[str]) -> Mapping[str, str]:
    """Return what `--set` says, by parameter.

    Raises:
        UserError: It is not `name=value` (E0601), or a name comes twice.
    """
    values_by_name: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        at = make_command_span(f"--set {setting}")
        if not equals or not name.strip().isidentifier():
            raise fail("E0601", "a setting is `name=value`", at, help="such as --set classes=5")
        if name.strip() in values_by_name:
            raise fail("E0601", f"`{name.strip()}` is set twice", at)
        values_by_name[name.strip()] = value.strip()
    return values_by_name


def find_bundle_folder(name: str | None) -> Path | None:
    """Return the folder that a user means, if it is a bundle's and not a spec.

    Raises:
        UserError: It is a folder, and neither a bundle nor the name of a known spec (E0620).
    """
    from tcc.compiler.support import atomic_files

    if not name:
        return None
    folder = Path(name)
    if not (os.path.isfile(folder) or _has_manifest(folder)):
        atomic_files.restore_folder(folder)  # it waits for whoever replaces the folder
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
    # Not `Path.is_file`, which raises where a name is too long for the system.
    return os.path.isfile(folder / "manifest.json")


def rename_network(spec: "Spec", name: str | None) -> "Spec":
    """Return a spec whose network is called by the name that the command line gives, if it does.

    Raises:
        UserError: It is no name of a network (E0629).
    """
    from tcc.compiler.frontend.language_schema import NETWORK_NAME

    if name is None:
        return spec
    if not re.fullmatch(NETWORK_NAME, name):
        help = "begin with a letter; then come letters, digits, `_`, `.` and `-`, 64 in all"
        message = f"a network cannot be called `{name[:80]}`"
        raise fail("E0629", message, make_command_span(f"--name {name}"), help=help)
    return replace(spec, name=name, graph=replace(spec.graph, name=name))
