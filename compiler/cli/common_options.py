"""The arguments and options that several sub-commands share, and what they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.report import Report, doubt
from tcc.compiler.support.diagnostics import Span, UserError, fail, whole_file

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.support.project_file import Project
    from tcc.compiler.zoo.trained import TrainedNetwork


def spec_names(incomplete: str) -> list[str]:
    """Return the names of known specs that begin so."""
    from tcc.compiler.zoo import shipped

    words = (*shipped.specs(), *(path.parent.name for path in shipped.trained()))
    return [name for name in words if name.startswith(incomplete)]


SpecArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="SPEC",
        show_default=False,
        autocompletion=spec_names,
        help="A spec file or the name of a known spec or trained network; without it, the project "
        "file's.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        show_default=False,
        help="Set a parameter of the spec; may be repeated.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Strict = Annotated[bool, typer.Option("--strict", help="Take warnings about the spec as errors.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; trace our own failures.")]


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


def words(option: str, text: str | None) -> tuple[str, ...]:
    """Return what an option says between commas, nothing where it is not given.

    Raises:
        UserError: One is empty, or comes twice (E0601).
    """
    if text is None:
        return ()
    found = tuple(word.strip() for word in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise fail("E0601", f"`{option}` takes different words", typed(f"{option} {text}"))
    return found


def typed(words: str) -> Span:
    """Return the place of words on the command line."""
    shown = words if len(words) <= 120 else f"{words[:117]}..."
    return whole_file(f"command line: {shown}")
