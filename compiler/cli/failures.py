"""What goes wrong, as the user sees it: text on standard error, JSON on request, an exit code."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import typer

from tcc.compiler.bundle.agreement import Disagreement, Mislabelled
from tcc.compiler.reference.accuracy_floor import BelowFloor, TooFewImages
from tcc.compiler.support import console as reports
from tcc.compiler.support import diagnostics, memory_limit
from tcc.compiler.support.atomic_files import MachineError, explain
from tcc.compiler.support.diagnostics import MAX_TOLD, Diagnostic, UserError
from tcc.compiler.support.external_tools import MissingTool

OURS, INPUT, TOOL, BELOW, INTERRUPTED = 1, 2, 3, 4, 130


class Rejected(UserError):  # noqa: N818 - what it is, not what it does
    """The input is wrong, and this much was found out about it all the same.

    `code` is the exit code: another than `INPUT` where something worse was found too.
    """

    def __init__(
        self,
        diagnostics: tuple[Diagnostic, ...],
        document: Mapping[str, Any],
        *,
        code: int = INPUT,
    ) -> None:
        super().__init__(diagnostics)
        self.document = document
        self.code = code


@dataclass(frozen=True)
class Failure:
    """An exit code, the text for a person, and the document for a program."""

    code: int
    text: str
    summary: str
    diagnostics: tuple[Diagnostic, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        listed = [d.as_json() for d in self.diagnostics]
        return {**self.more, "error": self.summary, "exit": self.code, "diagnostics": listed}


def report(error: Exception, words: Sequence[str]) -> int:
    """Tell the user of an error that ended a command; return the exit code.

    `words` are the command line's: they ask for JSON, or for the traceback of our own failures.
    """
    failure = _failure(
        _explain_shortage(error), "--verbose" in words or "-v" in words or _debugging()
    )
    reports.complain(failure.text)
    # By the words themselves: the command line may be what is wrong, so that nothing has read it.
    if "--json" in words:
        reports.print_json(failure.document())
    return failure.code


def _explain_shortage(error: Exception) -> Exception:
    """Return what to tell of an error: that memory is short, where that is what it comes of."""
    explained = isinstance(error, UserError | MissingTool | Disagreement | BelowFloor)
    # Without a limit, what is explained is believed: a file may ask for more than there is.
    believed = explained and memory_limit.read_limit() is None
    short = not believed and memory_limit.is_caused_by_shortage(error)
    return memory_limit.make_shortage_error(error) if short else error


def _failure(error: Exception, debug: bool) -> Failure:  # noqa: C901, PLR0911 - one a kind
    match error:
        case UserError():
            told = _told(error)
            text = _grouped(error)
            found = error if isinstance(error, Rejected) else None
            more = {**(found.document if found else {}), "more": told.more}
            below = BELOW if isinstance(error, Mislabelled | TooFewImages) else INPUT
            code = found.code if found else below
            return Failure(code, text, _summary(told), told.diagnostics, more)
        case MissingTool(tool=tool, why=why):
            text = f"error: {tool.name} is needed to {tool.needed_for}, and is not here"
            text += f"\n   = note: {why}" if why else ""
            text += f"\n   = help: install it: {tool.install}"
            return Failure(TOOL, text, str(error), more={"tool": asdict(tool)})
        case MachineError(diagnostic=found):
            return Failure(OURS, str(found), found.message, (found,))
        case Disagreement():
            return _disagreement(error)
        case BelowFloor():
            return _below(error)
        case typer.TyperException():
            return Failure(error.exit_code, _usage(error), error.format_message())
        case typer.Abort():
            return Failure(INTERRUPTED, "interrupted", "interrupted")
        case OSError():
            return _system(error, debug)
        case _:
            return _internal(error, debug)


def _disagreement(error: Disagreement) -> Failure:
    summary = f"{error}; nothing is written"
    notes = [f"   = {error.why}"] if error.why else []
    notes += [
        f"   = golden {each.golden}, output `{each.output}`: off by {each.difference:.1e} of its"
        f" largest value, {each.allowed:.0e} is allowed"
        for each in error.found
        if not each.holds
    ]
    more = {"agreement": [each.as_json() for each in error.found]}
    return Failure(BELOW, "\n".join([f"error: {summary}", *notes]), summary, more=more)


def _below(error: BelowFloor) -> Failure:
    """Return what to say of integers that lose too much: the bounds, the layers, what helps."""
    summary = f"with integers, {error}; nothing is written"
    layers = [f"   = {c.name}, {c.at}: {c.loss}" for c in error.culprits]
    mixed = "" if error.mixed else "`--mixed` keeps the layers that need it in float; "
    help = (
        f"   = help: {mixed}calibrate with more images, by which the bounds for unseen ones are"
        " narrower, or with other ones; or lower the floor with --floor NAME=VALUE, where"
        " NAME is min_cosine, max_drop, min_correlation or max_error"
    )
    # Without images nothing is known of layers.
    heading = ["   = the layers that lose the most:"] if layers else []
    text = "\n".join([f"error: {summary}", *heading, *layers, help])
    culprits = [{"layer": c.name, "at": str(c.at), "loss": c.loss} for c in error.culprits]
    found = {name: _numbers(asdict(one)) for name, one in error.found.items()}
    more = {"quality": found, "culprits": culprits}
    return Failure(BELOW, text, summary, more=more)


def _numbers(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data in which null stands for what is no number."""
    odd = {key for key, one in plain.items() if isinstance(one, float) and not isfinite(one)}
    return {key: None if key in odd else one for key, one in plain.items()}


def _grouped(error: UserError) -> str:
    """Return the text of an error: as many causes as are told, and how many mistakes there are."""
    groups = diagnostics.group_alike(error.diagnostics)
    hidden = sum(len(group.members) for group in groups[MAX_TOLD:]) + error.more
    tail = [f"and {'at least ' if error.cut else ''}{hidden:,} more"] if hidden else []
    total = [error.counted] if error.count > 1 else []
    return "\n\n".join([*map(str, groups[:MAX_TOLD]), *tail, *total])


def _told(error: UserError) -> UserError:
    """Return an error with as many diagnostics as are told, and the number of the others."""
    found = error.diagnostics
    return UserError(found[:MAX_TOLD], error.more + len(found[MAX_TOLD:]), error.cut)


def _summary(error: UserError) -> str:
    one = len(error.diagnostics) == error.count == 1
    return error.diagnostics[0].message if one else error.counted


def _usage(error: typer.TyperException) -> str:
    """Return what typer says of a wrong command line, with the usage of the command."""
    context = getattr(error, "ctx", None)
    usage = f"{context.get_usage()}\nTry `{context.command_path} --help`.\n\n" if context else ""
    return f"{usage}error: {error.format_message()}"


def _system(error: OSError, debug: bool) -> Failure:
    """Return what to say of an operating system's error that nothing else explained."""
    known = explain(error, error.filename or "<an open file>", "go on")
    # A missing file, say, should have been told where it was looked for: that it was not is our
    # fault.
    plain = isinstance(known, MachineError) or isinstance(error, PermissionError)
    return _failure(known, debug) if plain else _internal(error, debug)


def _internal(error: Exception, debug: bool) -> Failure:
    import traceback

    what = f"{type(error).__name__}: {error}".splitlines()[0]
    text = f"internal error: {what}\n   = help: please report this, with the output of --verbose"
    if debug:
        text = f"{''.join(traceback.format_exception(error))}\n{text}"
    return Failure(OURS, text, f"internal error: {what}")


def _debugging() -> bool:
    return os.environ.get("TCC_DEBUG", "") not in ("", "0")
