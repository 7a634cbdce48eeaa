"""The application: its sub-commands, and what happens before and after each."""

import os
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, NoReturn

import typer

from tcc.compiler.cli import failures
from tcc.compiler.cli.bench import bench
from tcc.compiler.cli.build import build
from tcc.compiler.cli.cache import cache
from tcc.compiler.cli.calibrate import EPILOG as METHODS
from tcc.compiler.cli.calibrate import calibrate
from tcc.compiler.cli.check import check
from tcc.compiler.cli.doctor import doctor
from tcc.compiler.cli.eval import evaluate
from tcc.compiler.cli.fmt import fmt
from tcc.compiler.cli.help import help_
from tcc.compiler.cli.import_onnx import import_
from tcc.compiler.cli.import_weights import import_weights
from tcc.compiler.cli.init import init
from tcc.compiler.cli.parameters import Command, CommandGroup
from tcc.compiler.cli.passes import passes
from tcc.compiler.cli.plot import plot
from tcc.compiler.cli.run import run
from tcc.compiler.cli.serve import serve
from tcc.compiler.cli.show import show
from tcc.compiler.cli.sign import sign
from tcc.compiler.cli.slide import slide
from tcc.compiler.cli.targets import targets
from tcc.compiler.cli.train import train
from tcc.compiler.cli.trust import trust
from tcc.compiler.cli.verify import verify
from tcc.compiler.cli.zoo import zoo
from tcc.compiler.support import console as reports
from tcc.compiler.support import end_signals, memory_limit, standard_streams, user_folders
from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.console import echo, named, printable

COMMANDS: dict[str, Callable[..., None]] = {
    "init": init,
    "check": check,
    "show": show,
    "train": train,
    "calibrate": calibrate,
    "build": build,
    "run": run,
    "serve": serve,
    "sign": sign,
    "eval": evaluate,
    "verify": verify,
    "bench": bench,
    "import": import_,
    "import-weights": import_weights,
    "targets": targets,
    "passes": passes,
    "doctor": doctor,
    "fmt": fmt,
    "help": help_,
}
"""The sub-commands, in the order in which help lists them. To add one: its file, and a line."""
GROUPS = {"plot": plot, "slide": slide, "zoo": zoo, "cache": cache, "trust": trust}
"""Those that have sub-commands of their own, which help lists last."""

EPILOG = (
    "Exit codes: 0 done, 1 tcc failed, 2 the input is wrong, 3 a tool is missing, "
    "4 built but wrong, 130 and 143 interrupted."
)

EPILOGS = {"calibrate": METHODS}
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
        words = list(sys.argv[1:] if args is None else args)
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
            code = end_signals.get_exit_code(failed=True) or failures.report(error, words)
        sys.exit(end_signals.get_exit_code(failed=False) or code or 0)


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
    for name, function in COMMANDS.items():
        if name in names:
            found.command(name, cls=Command, epilog=EPILOGS.get(name))(function)
    for name, group in GROUPS.items():
        if name in names:
            found.add_typer(group, name=name)
    return found


app = application({*COMMANDS, *GROUPS})
"""`tcc` with all that it can do."""


def needed(words: Sequence[str]) -> typer.Typer:
    """Return the application as far as a command line needs it.

    Typer makes every option of every sub-command, which takes longer than many a command.
    """
    alone = bool(words) and words[0] in {*COMMANDS, *GROUPS} - {"help"}
    return application(words[:1]) if alone else app


def main() -> None:
    """Run `tcc` as a process of its own."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # sums in one order; threads are our own
    end_signals.catch()
    standard_streams.prepare()
    try:
        _run(sys.argv[1:])
    finally:
        end_signals.ignore()
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
