"""The options that several commands share, in groups: each field is an option of a command.

A command takes a group as a parameter, such as `source: SpecOptions`. `parameters.expand` hands
Typer the group's fields as options, and the command the filled record.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli import common_options
from tcc.compiler.cli.common_options import ChosenSpec, spec_names, typed
from tcc.compiler.cli.report import Report
from tcc.compiler.quant.methods import DEFAULT, METHODS
from tcc.compiler.support.diagnostics import fail

if TYPE_CHECKING:
    from tcc.compiler.quant.methods.method import Method
    from tcc.compiler.support.task_places import TaskPlace

METHOD_NAMES = [method.name for method in METHODS]


@dataclass(frozen=True)
class ReportOptions(Report):
    """How much a command reports, and in which form: the options of every command."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result alone.")] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more; trace our own failures.")
    ] = False


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
Strict = Annotated[bool, typer.Option("--strict", help="Take warnings about the spec as errors.")]


@dataclass(frozen=True)
class SpecOptions:
    """The spec that a command works on, its parameters, and whether its warnings are errors."""

    spec: SpecArgument = None
    settings: Settings = None
    strict: Strict = False

    def choose(self) -> ChosenSpec:
        """Return the spec that the command line names, or else the project file.

        Raises:
            UserError: There is none, or it is wrong; or, if `strict`, it is doubtful.
        """
        return common_options.choose(self.spec, self.settings, self.strict)


@dataclass(frozen=True)
class WeightOptions:
    """The weights of a network: a file, or random ones of a seed."""

    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            show_default=False,
            help="Weights as safetensors; without them, the project file's, or random ones.",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            min=0,
            show_default=False,
            help="Take random weights of this seed.",
        ),
    ] = None


Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="RUN|none",
        show_default=False,
        help="The run of `tcc train` whose split holds, by its folder or split.csv; without it, "
        "that of the folder in which the weights lie.",
    ),
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="Integers as a file says that `tcc calibrate` wrote; without it, calibrate here.",
    ),
]


@dataclass(frozen=True)
class CalibrationOptions:
    """The images that calibrate a network, and by which method."""

    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            show_default=False,
            help="Images to calibrate with: a folder, a folder of class folders, or an .npz file; "
            "without it, the project file's.",
        ),
    ] = None
    split: Split = None
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="M",
            show_default=False,
            help=f"{', '.join(METHOD_NAMES[:-1])} or {METHOD_NAMES[-1]}; without it, "
            f"{DEFAULT.name}.",
        ),
    ] = None
    guard: Annotated[
        bool,
        typer.Option(
            "--guard/--no-guard",
            help="Give way to min-max where images held out show that a method is worse, or take "
            "the method's own scales whatever they lose.",
        ),
    ] = True
    min_images: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Refuse fewer different images than N, by their pixels."
        ),
    ] = 1

    def find_method(self) -> "Method":
        """Return the method that is named, or the default, with or without its guard.

        Raises:
            UserError: There is none of that name (E0617), or nothing guards it (E0601).
        """
        from tcc.compiler.quant.calibrate import known

        method = known(self.method, typed(f"--method {self.method}"))
        if self.guard:
            return method
        unguarded = method.unguarded()
        if unguarded is None:
            guarded = ", ".join(each.name for each in METHODS if each.unguarded())
            message = f"min-max does not guard `{method.name}`, so that there is no guard to leave"
            help = f"--no-guard is for {guarded}"
            raise fail("E0601", f"{message} out", typed("--no-guard"), help=help)
        return unguarded


def _target_names(incomplete: str) -> list[str]:
    from tcc.compiler.cli import devices

    before, comma, last = incomplete.rpartition(",")
    names = [device.name for device in devices.every()]
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


@dataclass(frozen=True)
class TargetOptions:
    """The targets, and the precision at which they are built."""

    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="T[,T...]",
            show_default=False,
            autocompletion=_target_names,
            help="What to build for (see `tcc targets`); may be repeated.",
        ),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(metavar="P", show_default=False, help="Precision; fp32 by default."),
    ] = None


BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A folder that `tcc build` wrote.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run a program that was not built here, now and later; and take a signature whose key "
        "is not known.",
    ),
]


@dataclass(frozen=True)
class ProgramOptions:
    """How the program in a bundle runs, and whether one of others may."""

    isa: Annotated[
        str | None,
        typer.Option(
            "--isa",
            metavar="NAME",
            show_default=False,
            help="Use these instructions, not the best that this processor has: x86-64-v2, ...",
        ),
    ] = None
    trust: Trust = False


@dataclass(frozen=True)
class ClusterOptions:
    """Where many tasks run: here, on a Dask cluster, or as jobs of Slurm."""

    dask: Annotated[
        str | None,
        typer.Option(
            metavar="local|ADDRESS",
            show_default=False,
            help="Run on a Dask cluster: processes here, or tcp://HOST:PORT.",
        ),
    ] = None
    slurm: Annotated[
        str | None,
        typer.Option(
            metavar="PARTITION", show_default=False, help="Run as jobs of a Slurm partition."
        ),
    ] = None

    def task_place(self, folder: Path, workers: int) -> "TaskPlace":
        """Return where tasks run, as the options say; `folder` is where Slurm's logs go."""
        from tcc.compiler.support.task_places import TaskPlace

        return TaskPlace(folder, self.dask, self.slurm, workers)
