"""The command line application: its subcommands, and what runs before and after each."""

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
from tcc.compiler.cli.doctor import check_installation, show_installation
from tcc.compiler.cli.eval import evaluate
from tcc.compiler.cli.field import refit_guard
from tcc.compiler.cli.fmt import format_files
from tcc.compiler.cli.help import find_present_name, show_help
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
from tcc.compiler.cli.slide_mask import write_mask
from tcc.compiler.cli.slide_patches import write_patches
from tcc.compiler.cli.slide_run import run as run_slides
from tcc.compiler.cli.targets import list_targets
from tcc.compiler.cli.train import train
from tcc.compiler.cli.verify import verify
from tcc.compiler.support import console as reports
from tcc.compiler.support import memory_limit, process_setup, user_folders
from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.console import attach_stream_name, echo, replace_unprintable


@dataclass(frozen=True)
class SubCommands:
    """Subcommands of a command group, and what the group does without one, if anything."""

    summary: str
    commands: "Mapping[str, Callable[..., None] | SubCommands]"
    bare: Callable[..., None] | None = None


SECTIONS: Mapping[str, Mapping[str, Callable[..., None] | SubCommands]] = {
    "Start": {
        "init": init,
        "check": check,
        "show": show,
        "zoo": zoo.list_models,
        "help": show_help,
    },
    "Build": {"train": train, "calibrate": calibrate, "build": build, "import": import_},
    "Inspect": {"eval": evaluate, "verify": verify, "bench": bench, "plot": plot},
    "Deploy": {
        "run": run,
        "serve": serve,
        "slide": SubCommands(
            "Find tissue on whole slides and classify it patch by patch.",
            {
                "run": run_slides,
                "mask": write_mask,
                "eval": evaluate_slides,
                "patches": write_patches,
            },
        ),
        "field": refit_guard,
        "sign": sign,
        "trust": SubCommands(
            "Show or change the signing keys that you trust, and the signature policy.",
            {
                "add": trusted_keys.add,
                "list": trusted_keys.list_,
                "revoke": trusted_keys.revoke,
                "require": trusted_keys.require,
                "folder": trusted_keys.allow_folder,
            },
            trusted_keys.list_,
        ),
        "targets": list_targets,
    },
    "Maintain": {
        "doctor": check_installation,
        "fmt": format_files,
        "dev": SubCommands(
            "Inspect tcc itself: passes, cache, packages, tables of papers.",
            {
                "passes": dev.list_passes,
                "cache": SubCommands(
                    "Show the cache of `tcc build`: later builds reuse its results.",
                    {"clear": dev.clear},
                    dev.show_cache,
                ),
                "doctor": show_installation,
                "table": zoo.print_paper_table,
            },
        ),
    },
}
"""The commands in the order of the help. To add one, write its file and add it here."""
COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}
"""All commands by their first word."""
HIDDEN = {"import-weights": import_weights}
"""Former names that are separate commands; `help.FORMER_NAMES` has the others."""

EPILOG = (
    "Exit codes: 0 done, 1 tcc failed, 2 the input is wrong, 3 a tool is missing, 4 the "
    "artifact is wrong or below its accuracy floor, 130 and 143 interrupted. Every "
    "command takes --json, --quiet and --verbose."
)

EPILOGS = {"calibrate": METHODS, "plot": KINDS}
"""The last paragraph of a command's help."""


def _resolve_spelling(option_name: str) -> str:
    """Return the current name of an option: `--out` is `--output` in every command."""
    return "output" if option_name == "out" else option_name


class Commands(CommandGroup):
    """The group of all subcommands. Only here do errors become exit codes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,  # noqa: ARG002 - the signature is typer's
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run the subcommand that `args` name, and exit with its code."""
        command_line = find_present_name(sys.argv[1:] if args is None else args)
        reports.SPEC_WARNINGS.set(None)
        try:
            for ignored in user_folders.describe_ignored_variables():
                echo(f"note: {replace_unprintable(ignored)}", err=True)
            code = super().main(
                command_line, "tcc", complete_var, False, windows_expand_args, **extra
            )
            if sys.stdout:
                # Flush here, so that a full disk becomes an error with an exit code. At the
                # interpreter's exit it would be a traceback.
                with attach_stream_name("<standard output>"):
                    sys.stdout.flush()
        except Exception as error:
            # An interrupted command can raise any error.
            code = process_setup.get_exit_code(failed=True) or failures.report(error, command_line)
        sys.exit(process_setup.get_exit_code(failed=False) or code or 0)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """List the commands by section."""
        width = max(map(len, COMMANDS))
        for section, names in SECTIONS.items():
            rows = [
                (f"{name:<{width}}", self.commands[name].get_short_help_str(100))
                for name in names
                if name in self.commands
            ]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from tcc.compiler.version import __version__

        echo(f"tcc {__version__}")
        raise typer.Exit


def tcc(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Compile a declarative network into device artifacts that agree with each other."""


def create_application(names: Collection[str]) -> typer.Typer:
    """Return the application with only the subcommands of these names."""
    typer_app = typer.Typer(
        cls=Commands,
        epilog=EPILOG,
        # tcc prints errors itself, and rich takes 0.1 s to load.
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
            "token_normalize_func": _resolve_spelling,
        },
    )
    typer_app.callback(no_args_is_help=True)(tcc)
    for name, command in {**COMMANDS, **HIDDEN}.items():
        if name in names:
            _add(typer_app, name, name, command)
    return typer_app


def _add(
    to: typer.Typer, name: str, command_path: str, command: Callable[..., None] | SubCommands
) -> None:
    """Add a command, or a group with its commands; `command_path` has the names from outside in."""
    if not isinstance(command, SubCommands):
        function = expand(command_path, command)
        epilog, hidden = EPILOGS.get(command_path), command_path in HIDDEN
        is_listed = command_path == "plot"  # its kinds are like commands
        to.command(name, cls=Command, epilog=epilog, hidden=hidden, no_args_is_help=is_listed)(
            function
        )
        return
    group = typer.Typer(
        cls=CommandGroup,
        no_args_is_help=command.bare is None,
        invoke_without_command=command.bare is not None,
        rich_markup_mode=None,
    )
    group.callback(help=command.summary)(_create_group_callback(command_path, command.bare))
    for inner_name, inner in command.commands.items():
        _add(group, inner_name, f"{command_path} {inner_name}", inner)
    to.add_typer(group, name=name)


def _create_group_callback(
    command_path: str, command: Callable[..., None] | None
) -> Callable[..., None]:
    """Return what a group runs before its subcommands, or without one."""

    def skip_group() -> None:
        """Do nothing: the subcommand does the work."""

    def call(context: typer.Context, *, report: ReportOptions) -> None:
        """Run the group's own action."""
        if is_bare(context) and command:
            command(report=report)

    return expand(command_path, call) if command else skip_group


app = create_application({*COMMANDS, *HIDDEN})
"""The complete application."""


def create_minimal_application(command_line: Sequence[str]) -> typer.Typer:
    """Return the application with only what a command line needs.

    Typer creates every option of every subcommand, which takes longer than many commands.
    """
    command_names = find_present_name(command_line)[:1]
    return (
        create_application(command_names)
        if {*command_names} & ({*COMMANDS, *HIDDEN} - {"help"})
        else app
    )


def main() -> None:
    """Run `tcc` in its own process."""
    process_setup.set_single_blas_thread()
    process_setup.catch_signals()
    process_setup.prepare_streams()
    try:
        _run(sys.argv[1:])
    finally:
        process_setup.ignore_signals()
        _finish_output()


def _run(command_line: Sequence[str]) -> NoReturn:
    if memory_limit.read_limit() is None:
        create_minimal_application(command_line)()
    try:
        code = memory_limit.run_in_child(create_minimal_application(command_line))
    except MachineError as error:
        code = failures.report(error, command_line)
    sys.exit(code)


def _finish_output() -> None:
    """Prevent the interpreter from flushing a standard output that is closed or full."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        # Python flushes again at exit, and would exit with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
