"""Report errors: text on standard error, JSON if requested, and an exit code."""

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
from tcc.compiler.support.diagnostics import MAX_REPORTED, Diagnostic, UserError
from tcc.compiler.support.external_tools import MissingTool

GENERAL_FAILURE, INPUT, TOOL, BELOW_FLOOR, INTERRUPTED = 1, 2, 3, 4, 130


class Rejected(UserError):  # noqa: N818 - a state, not an action
    """The input is wrong; `document` has the results that are known anyway.

    `code` is the exit code, which is not `INPUT` if something worse was found too.
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document."""
        diagnostic_list = [d.to_json() for d in self.diagnostics]
        return {
            **self.extra,
            "error": self.summary,
            "exit": self.code,
            "diagnostics": diagnostic_list,
        }


def report(error: Exception, command_line: Sequence[str]) -> int:
    """Report an error that ended a command; return the exit code.

    `command_line` shows whether the user wants JSON, or the traceback of an internal error.
    """
    failure = _create_failure(
        _explain_shortage(error),
        "--verbose" in command_line or "-v" in command_line or _is_debugging(),
    )
    reports.print_problem(failure.text)
    # Search the words: the command line may be wrong and therefore not parsed.
    if "--json" in command_line:
        reports.print_json(failure.to_document())
    return failure.code


def _explain_shortage(error: Exception) -> Exception:
    """Return the error to report: a shortage of memory if that caused it."""
    explained = isinstance(error, UserError | MissingTool | Disagreement | BelowFloor)
    # Without a limit, keep an explained error: a file can ask for more memory than there is.
    believed = explained and memory_limit.read_limit() is None
    short = not believed and memory_limit.is_caused_by_shortage(error)
    return memory_limit.make_shortage_error(error) if short else error


def _create_failure(error: Exception, debug: bool) -> Failure:  # noqa: C901, PLR0911 - one a kind
    match error:
        case UserError():
            limited = _limit_diagnostics(error)
            text = _format_groups(error)
            rejection = error if isinstance(error, Rejected) else None
            extra = {**(rejection.document if rejection else {}), "more": limited.omitted_count}
            below = BELOW_FLOOR if isinstance(error, Mislabelled | TooFewImages) else INPUT
            code = rejection.code if rejection else below
            return Failure(code, text, _summarize(limited), limited.diagnostics, extra)
        case MissingTool(tool=tool, reason=reason):
            text = f"error: {tool.name} is needed to {tool.needed_for}, but it is not installed"
            text += f"\n   = note: {reason}" if reason else ""
            text += f"\n   = help: install it: {tool.install}"
            return Failure(TOOL, text, str(error), extra={"tool": asdict(tool)})
        case MachineError(diagnostic=diagnostic):
            return Failure(GENERAL_FAILURE, str(diagnostic), diagnostic.message, (diagnostic,))
        case Disagreement():
            return _describe_disagreement(error)
        case BelowFloor():
            return _describe_below_floor(error)
        case typer.TyperException():
            return Failure(error.exit_code, _format_usage(error), error.format_message())
        case typer.Abort():
            return Failure(INTERRUPTED, "interrupted", "interrupted")
        case OSError():
            return _describe_system_error(error, debug)
        case _:
            return _describe_internal_error(error, debug)


def _describe_disagreement(error: Disagreement) -> Failure:
    summary = f"{error}; nothing is written"
    notes = [f"   = {error.reason}"] if error.reason else []
    notes += [
        (
            f"   = golden {agreement.golden}, output `{agreement.output}`: the error is "
            f"{agreement.difference:.1e} of the largest value; {agreement.allowed:.0e} is "
            "allowed"
        )
        for agreement in error.agreements
        if not agreement.holds
    ]
    extra = {"agreement": [agreement.to_json() for agreement in error.agreements]}
    return Failure(BELOW_FLOOR, "\n".join([f"error: {summary}", *notes]), summary, extra=extra)


def _describe_below_floor(error: BelowFloor) -> Failure:
    """Describe an int8 model below its accuracy floor: bounds, layers, and what helps."""
    summary = f"int8 model: {error}; nothing is written"
    layers = [f"   = {c.name}, {c.at}: {c.loss}" for c in error.lossy_layers]
    mixed = "" if error.mixed else "use `--mixed`, which keeps the layers that need it in float; "
    help = (
        f"   = help: {mixed}calibrate with more images, which makes the bounds for "
        "unseen images narrower, or with other images; or lower the floor with --floor "
        "NAME=VALUE, where NAME is min_cosine, max_drop, min_correlation or max_error"
    )
    # Without images there is no error of each layer.
    heading = ["   = layers with the largest quantization error:"] if layers else []
    text = "\n".join([f"error: {summary}", *heading, *layers, help])
    culprits = [{"layer": c.name, "at": str(c.at), "loss": c.loss} for c in error.lossy_layers]
    quality_by_output = {
        name: _replace_nonfinite(asdict(quality)) for name, quality in error.qualities.items()
    }
    extra = {"quality": quality_by_output, "culprits": culprits}
    return Failure(BELOW_FLOOR, text, summary, extra=extra)


def _replace_nonfinite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data with null for each number that is not finite."""
    odd = {
        key for key, number in figures.items() if isinstance(number, float) and not isfinite(number)
    }
    return {key: None if key in odd else number for key, number in figures.items()}


def _format_groups(error: UserError) -> str:
    """Return the text of an error: the first causes, and the number of mistakes."""
    groups = diagnostics.group_alike(error.diagnostics)
    hidden = sum(len(group.members) for group in groups[MAX_REPORTED:]) + error.omitted_count
    tail = [f"and {'at least ' if error.is_truncated else ''}{hidden:,} more"] if hidden else []
    total = [error.count_text] if error.count > 1 else []
    return "\n\n".join([*map(str, groups[:MAX_REPORTED]), *tail, *total])


def _limit_diagnostics(error: UserError) -> UserError:
    """Return an error with only the reported diagnostics, and the number of the others."""
    all_diagnostics = error.diagnostics
    return UserError(
        all_diagnostics[:MAX_REPORTED],
        error.omitted_count + len(all_diagnostics[MAX_REPORTED:]),
        error.is_truncated,
    )


def _summarize(error: UserError) -> str:
    is_single = len(error.diagnostics) == error.count == 1
    return error.diagnostics[0].message if is_single else error.count_text


def _format_usage(error: typer.TyperException) -> str:
    """Return typer's message about a wrong command line, with the usage of the command."""
    context = getattr(error, "ctx", None)
    usage = f"{context.get_usage()}\nTry `{context.command_path} --help`.\n\n" if context else ""
    return f"{usage}error: {error.format_message()}"


def _describe_system_error(error: OSError, debug: bool) -> Failure:
    """Describe an operating system error that nothing else explained."""
    explained = explain(error, error.filename or "<an open file>", "go on")
    # A missing file, for example, should have been reported where it was opened. Otherwise it is a
    # bug of tcc.
    is_expected = isinstance(explained, MachineError) or isinstance(error, PermissionError)
    return (
        _create_failure(explained, debug) if is_expected else _describe_internal_error(error, debug)
    )


def _describe_internal_error(error: Exception, debug: bool) -> Failure:
    import traceback

    description = f"{type(error).__name__}: {error}".splitlines()[0]
    text = (
        f"internal error: {description}\n   = help: this is a bug in tcc; please report "
        "it with the output of --verbose"
    )
    if debug:
        text = f"{''.join(traceback.format_exception(error))}\n{text}"
    return Failure(GENERAL_FAILURE, text, f"internal error: {description}")


def _is_debugging() -> bool:
    return os.environ.get("TCC_DEBUG", "") not in ("", "0")
