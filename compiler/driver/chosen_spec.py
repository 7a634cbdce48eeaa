"""The spec that a command or call names, or else the project file's; and whether it is a bundle."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.support.console import Report, doubt
from tcc.compiler.support.diagnostics import UserError, fail, typed, whole_file

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.support.project_file import Project
    from tcc.compiler.zoo.trained import TrainedNetwork


@dataclass(frozen=True)
class ChosenSpec:
    """The spec that a command works on, and the project whose defaults hold.

    `own` says that it is the project's spec, so that its weights belong to it, and `named` that
    the project names it where the command line does not. `trained` is the
    trained network of the zoo that it is, `changed` whether settings make it another.
    """

    spec: "Spec"
    project: "Project"
    own: bool
    trained: "TrainedNetwork | None" = None
    changed: bool = False
    named: bool = False


def choose(name: str | None, settings: Sequence[str] | None, strict: bool = False) -> ChosenSpec:
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

    found = project_file.find(Path())
    # A trained network's name comes before a file's: `ddsnet-blood` is what `tcc zoo` lists.
    network = trained.named(name) if name is not None else _their_network(found)
    if network:
        own = name is None or _their_network(found) == network
    else:
        path = shipped.find_spec(name, typed(name)) if name is not None else _theirs(found)
        own = name is None or _is_theirs(path, found)
    # The project's parameters are for its own spec; what is typed leads.
    chosen = {**(found.params if own else {}), **parsed(settings or ())}
    spec = network.load(chosen) if network else load(path, chosen)
    if strict and spec.warnings:
        raise UserError(tuple(replace(w, severity="error") for w in spec.warnings))
    doubt(spec.warnings)
    return ChosenSpec(spec, found, own, network, bool(chosen), name is None)


def tell_project(report: Report, chosen: ChosenSpec, *, weights: bool = False) -> None:
    """Say what a project file chooses of a network, and which file that is.

    Args:
        report: Where it is told.
        chosen: The spec, and the project that it may come from.
        weights: Whether weights are taken, and the command line names none.
    """
    project = chosen.project
    choices = [f"the spec {project.spec}"] if chosen.named else []
    if chosen.own and project.params:
        choices.append(f"the parameters {', '.join(project.params)}")
    if chosen.own and weights and project.weights:
        choices.append(f"the weights {project.weights}")
    if choices:
        report.note(f"{project.path} chooses {', '.join(choices)}")


def _theirs(project: "Project") -> Path:
    """Return the spec that a project file names."""
    from tcc.compiler.zoo import shipped

    if project.spec is None:
        help = "name a spec, such as `ddsnet`, or say `spec = ...` in tcc.toml"
        raise fail("E0608", "which spec?", whole_file("command line"), help=help)
    return shipped.find_spec(project.spec, project.places["spec"], project.folder)


def _their_network(project: "Project") -> "TrainedNetwork | None":
    """Return the trained network that a project file names, if it names one."""
    from tcc.compiler.zoo import trained

    return trained.named(project.spec, project.folder) if project.spec else None


def _is_theirs(path: Path, project: "Project") -> bool:
    """Whether a file is the spec that a project file names, if there is one."""
    try:
        return not _their_network(project) and path.resolve() == _theirs(project).resolve()
    except UserError:
        return False


def parsed(settings: Sequence[str]) -> Mapping[str, str]:
    """Return what `--set` says, by parameter.

    Raises:
        UserError: It is not `name=value` (E0601), or a name comes twice.
    """
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        at = typed(f"--set {setting}")
        if not equals or not name.strip().isidentifier():
            raise fail("E0601", "a setting is `name=value`", at, help="such as --set classes=5")
        if name.strip() in found:
            raise fail("E0601", f"`{name.strip()}` is set twice", at)
        found[name.strip()] = value.strip()
    return found


def bundle_folder(name: str | None) -> Path | None:
    """Return the folder that a user means, if it is a bundle's and not a spec.

    Raises:
        UserError: It is a folder, and neither a bundle nor the name of a known spec (E0620).
    """
    from tcc.compiler.support import atomic_files

    if not name:
        return None
    folder = Path(name)
    if not (os.path.isfile(folder) or _has_manifest(folder)):
        atomic_files.recover(folder)  # it waits for whoever replaces the folder
    if _has_manifest(folder):
        return folder
    if os.path.isdir(folder) and not _is_known(name):
        from tcc.compiler.bundle import mistaken_paths

        raise mistaken_paths.no_bundle(folder)
    return None


def _is_known(name: str) -> bool:
    from tcc.compiler.zoo import shipped, trained

    return name in shipped.specs() or trained.named(name) is not None


def _has_manifest(folder: Path) -> bool:
    # Not `Path.is_file`, which raises where a name is too long for the system.
    return os.path.isfile(folder / "manifest.json")


def renamed(spec: "Spec", name: str | None) -> "Spec":
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
        raise fail("E0629", message, typed(f"--name {name}"), help=help)
    return replace(spec, name=name, graph=replace(spec.graph, name=name))
