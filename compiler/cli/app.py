"""The application: its sub-commands, and what happens before and after each."""

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import typer

from tcc.compiler.cli import dev, failures, zoo
from tcc.compiler.cli import trust as trusted_keys
from tcc.compiler.cli.bench import bench
from tcc.compiler.cli.build import build
from tcc.compiler.cli.calibrate import EPILOG as METHODS
from tcc.compiler.cli.calibrate import calibrate
from tcc.compiler.cli.check import check
from tcc.compiler.cli.doctor import doctor, inspect_installation
from tcc.compiler.cli.eval import evaluate
from tcc.compiler.cli.fmt import fmt
from tcc.compiler.cli.help import find_present_name, help_
from tcc.compiler.cli.import_network import import_, import_weights
from tcc.compiler.cli.init import init
from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.cli.parameters import Command, CommandGroup, expand, is_bare
from tcc.compiler.cli.plot import EPILOG as KINDS
from tcc.compiler.cli.plot import plot
from tcc.compiler.cli.run import run
from tcc.compiler.cli.serve import serve
from tcc.compiler.cli.show import show
from tcc.compiler.cli.sign import sign
from tcc.compiler.cli.slide_eval import evaluate as evaluate_slides
from tcc.compiler.cli.slide_mask import mask
from tcc.compiler.cli.slide_patches import patches
from tcc.compiler.cli.slide_run import run as run_slides
from tcc.compiler.cli.targets import targets
from tcc.compiler.cli.train import train
from tcc.compiler.cli.verify import verify
from tcc.compiler.support import console as reports
from tcc.compiler.support import memory_limit, process_setup, user_folders
from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.console import echo, named, printable


@dataclass(frozen=True)
class SubCommands:
    """Sub-commands under one word, and what it does by itself, if anything."""

    summary: str
    commands: "Mapping[str, Callable[..., None] | SubCommands]"
    bare: Callable[..., None] | None = None


SECTIONS: Mapping[str, Mapping[str, Callable[..., None] | SubCommands]] = {
    "Start": {"init": init, "check": check, "show": show, "zoo": zoo.models, "help": help_},
    "Build": {"train": train, "calibrate": calibrate, "build": build, "import": import_},
    "Inspect": {"eval": evaluate, "verify": verify, "bench": bench, "plot": plot},
    "Deploy": {
        "run": run,
        "serve": serve,
        "slide": SubCommands(
            "Find the tissue of whole slides, and classify it patch by patch.",
            {
                "run": run_slides,
                "mask": mask,
                "eval": evaluate_slides,
                "patches": patches,
            },
        ),
        "sign": sign,
        "trust": SubCommands(
            "Show whose signatures you trust, and whether they are required.",
            {
                "add": trusted_keys.add,
                "list": trusted_keys.list_,
                "revoke": trusted_keys.revoke,
                "require": trusted_keys.require,
                "folder": trusted_keys.folder,
            },
            trusted_keys.list_,
        ),
        "targets": targets,
    },
    "Maintain": {
        "doctor": doctor,
        "fmt": fmt,
        "dev": SubCommands(
            "Look into tcc itself: passes, cache, machine, papers' tables.",
            {
                "passes": dev.passes,
                "cache": SubCommands(
                    "Show what builds kept: the next ones take what the same inputs gave before.",
                    {"clear": dev.clear},
                    dev.shown,
                ),
                "doctor": inspect_installation,
                "table": zoo.regenerate,
            },
        ),
    },
}
"""The commands, in the order in which help lists them. To add one: its file, and a word here."""
COMMANDS = {name: each for section in SECTIONS.values() for name, each in section.items()}
"""All of these by their first word."""
HIDDEN = {"import-weights": import_weights}
"""Former names that are commands of their own; `help.FORMER_NAMES` has the others."""

EPILOG = (
    "Exit codes: 0 done, 1 tcc failed, 2 the input is wrong, 3 a tool is missing, "
    "4 built but wrong, 130 and 143 interrupted. Every command takes --json, --quiet and --verbose."
)

EPILOGS = {"calibrate": METHODS, "plot": KINDS}
"""What the help of a command ends with."""


def _spelling(word: str) -> str:
    """Return how a word is spelt now: `--out` stands for `--output` of every command."""
    return "output" if word == "out" else word


class Commands(CommandGroup):
    """The group of all sub-commands; the one place where errors become exit codes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,  # noqa: ARG002 - the signature is typer's
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run the sub-command that `args` name, and exit with its code."""
        words = find_present_name(sys.argv[1:] if args is None else args)
        reports.HEARD.set(None)
        try:
            for ignored in user_folders.ignored_variables():
                echo(f"note: {printable(ignored)}", err=True)
            code = super().main(words, "tcc", complete_var, False, windows_expand_args, **extra)
            if sys.stdout:
                # Here, where a full disk still becomes an error and an exit code; at the
                # interpreter's own end it is a traceback.
                with named("<standard output>"):
                    sys.stdout.flush()
        except Exception as error:
            # What a signal interrupts may end as any error.
            code = process_setup.get_exit_code(failed=True) or failures.report(error, words)
        sys.exit(process_setup.get_exit_code(failed=False) or code or 0)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """List the commands by what they are for."""
        width = max(map(len, COMMANDS))
        for section, names in SECTIONS.items():
            listed = [
                (f"{name:<{width}}", self.commands[name].get_short_help_str(100))
                for name in names
                if name in self.commands
            ]
            if listed:
                with formatter.section(section):
                    formatter.write_dl(listed)


def _version(wanted: bool) -> None:
    if wanted:
        from tcc.compiler.version import __version__

        echo(f"tcc {__version__}")
        raise typer.Exit


def tcc(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """From a declarative network to device artifacts that agree with each other."""


def application(names: Collection[str]) -> typer.Typer:
    """Return the application with the sub-commands of these names alone."""
    found = typer.Typer(
        cls=Commands,
        epilog=EPILOG,
        # Errors are ours to print, and rich takes a tenth of a second to load.
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
            "token_normalize_func": _spelling,
        },
    )
    found.callback(no_args_is_help=True)(tcc)
    for name, command in {**COMMANDS, **HIDDEN}.items():
        if name in names:
            _add(found, name, name, command)
    return found


def _add(
    to: typer.Typer, name: str, words: str, command: Callable[..., None] | SubCommands
) -> None:
    """Add a command, or a group with its own; `words` are its names, the outer ones first."""
    if not isinstance(command, SubCommands):
        function = expand(words, command)
        epilog, hidden = EPILOGS.get(words), words in HIDDEN
        listed = words == "plot"  # its kinds are as good as commands
        to.command(name, cls=Command, epilog=epilog, hidden=hidden, no_args_is_help=listed)(
            function
        )
        return
    group = typer.Typer(
        cls=CommandGroup,
        no_args_is_help=command.bare is None,
        invoke_without_command=command.bare is not None,
        rich_markup_mode=None,
    )
    group.callback(help=command.summary)(_bare(words, command.bare))
    for each, inner in command.commands.items():
        _add(group, each, f"{words} {each}", inner)
    to.add_typer(group, name=name)


def _bare(words: str, command: Callable[..., None] | None) -> Callable[..., None]:
    """Return what a group calls before its sub-commands, or without one."""

    def nothing() -> None:
        """Leave all to the sub-command."""

    def call(context: typer.Context, *, report: ReportOptions) -> None:
        """Do what the group does by itself."""
        if is_bare(context) and command:
            command(report=report)

    return expand(words, call) if command else nothing


app = application({*COMMANDS, *HIDDEN})
"""`tcc` with all that it can do."""


def needed(words: Sequence[str]) -> typer.Typer:
    """Return the application as far as a command line needs it.

    Typer makes every option of every sub-command, which takes longer than many a command.
    """
    first = find_present_name(words)[:1]
    return application(first) if {*first} & ({*COMMANDS, *HIDDEN} - {"help"}) else app


def main() -> None:
    """Run `tcc` as a process of its own."""
    process_setup.fix_order_of_sums()
    process_setup.catch_signals()
    process_setup.prepare_streams()
    try:
        _run(sys.argv[1:])
    finally:
        process_setup.ignore_signals()
        _leave()


def _run(words: Sequence[str]) -> NoReturn:
    if memory_limit.read_limit() is None:
        needed(words)()
    try:
        code = memory_limit.watch(needed(words))
    except MachineError as error:
        code = failures.report(error, words)
    sys.exit(code)


def _leave() -> None:
    """Keep the interpreter from flushing a standard output that is closed or full."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        # Python flushes once more while it ends, and would exit with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
