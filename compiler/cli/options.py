"""Groups of options that several commands share: each field is an option of a command.

A command has a group as a parameter, such as `source: SpecOptions`. `parameters.expand` gives Typer
the fields of the group as options, and the command the filled record.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.driver import chosen_spec, weights_and_images
from tcc.compiler.driver.chosen_spec import ChosenSpec
from tcc.compiler.driver.pass_options import PassOptions
from tcc.compiler.quant.methods import DEFAULT, METHODS
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import fail, make_command_span

if TYPE_CHECKING:
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.quant.methods.method import Method
    from tcc.compiler.slides.tissue_mask import TissueChoices
    from tcc.compiler.support.task_runners import TaskLocation

METHOD_NAMES = [method.name for method in METHODS]


@dataclass(frozen=True)
class ReportOptions(Report):
    """How much a command reports, and in which form: the options of every command."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")] = False
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Print details, and a traceback if tcc itself fails."),
    ] = False


def split_words(option: str, text: str | None) -> tuple[str, ...]:
    """Return the comma-separated words of an option; nothing if it is not given.

    Raises:
        UserError: A word is empty or occurs twice (E0601).
    """
    if text is None:
        return ()
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts) or len(set(parts)) < len(parts):
        raise fail(
            "E0601",
            f"`{option}` has an empty or repeated value",
            make_command_span(f"{option} {text}"),
            help="separate different values by single commas",
        )
    return parts


def complete_spec(incomplete: str) -> list[str]:
    """Return the names of known specs with this prefix."""
    from tcc.compiler.zoo import shipped

    known_names = (*shipped.list_specs(), *(path.parent.name for path in shipped.list_trained()))
    return [name for name in known_names if name.startswith(incomplete)]


SpecArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="SPEC",
        show_default=False,
        autocompletion=complete_spec,
        help="A spec file, or the name of a known spec or trained network. Default: the spec "
        "of the project file.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        show_default=False,
        help="Set a parameter of the spec. Can be repeated.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Treat warnings about the spec as errors.")]


@dataclass(frozen=True)
class SpecOptions:
    """The spec of a command, its parameters, and whether its warnings are errors."""

    spec: SpecArgument = None
    settings: Settings = None
    strict: Strict = False

    def choose(self) -> ChosenSpec:
        """Return the spec of the command line, or else of the project file.

        Raises:
            UserError: There is none, it has an error, or, with `strict`, it has a warning.
        """
        return chosen_spec.choose_spec(self.spec, self.settings, self.strict)


@dataclass(frozen=True)
class WeightOptions:
    """The weights of a network: a file, or random weights with a seed."""

    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            show_default=False,
            help="Weights file (safetensors). Default: the project file's or the trained "
            "network's weights, or random weights.",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            min=0,
            show_default=False,
            help="Use random weights with this seed.",
        ),
    ] = None

    def load(self, report: Report, choice: ChosenSpec) -> "WeightSource":
        """Return the weights for a spec; random weights are reported on standard error.

        Raises:
            UserError: A file and a seed are given (E0601), or the file does not fit the spec.
        """
        return weights_and_images.load_weights(report, choice, self.weights, self.seed)

    def find_file(self, choice: ChosenSpec) -> Path | None:
        """Return the weights file of the options or the project; None for random or zoo weights."""
        return weights_and_images.find_weights_file(choice, self.weights, self.seed)


Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="RUN|none",
        show_default=False,
        help="Use the split of this `tcc train` run: its folder or split.csv. Default: the "
        "run in which the weights are. With `none`, ignore that split.",
    ),
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="Calibration file that `tcc calibrate` wrote. Without it, `tcc build` calibrates.",
    ),
]


@dataclass(frozen=True)
class CalibrationOptions:
    """The calibration images and the calibration method."""

    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            show_default=False,
            help="Calibration images: a folder, a folder of class folders, or an .npz file. "
            "Default: the project file's.",
        ),
    ] = None
    split: Split = None
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="M",
            show_default=False,
            help=f"Calibration method: {', '.join(METHOD_NAMES[:-1])} or {METHOD_NAMES[-1]}. "
            f"Default: {DEFAULT.name}.",
        ),
    ] = None
    guard: Annotated[
        bool,
        typer.Option(
            "--guard/--no-guard",
            help="Use min-max instead of a method that is worse on held-out images; or "
            "always use the method's own scales.",
        ),
    ] = True
    min_images: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Fail if fewer than N images differ in their pixels."
        ),
    ] = 1

    def find_method(self) -> "Method":
        """Return the named method, or the default one, with or without its guard.

        Raises:
            UserError: There is no such method (E0617), or it has no guard (E0601).
        """
        from tcc.compiler.driver.calibration import find_method

        return find_method(self.method, guard=self.guard)


def _complete_target(incomplete: str) -> list[str]:
    from tcc.compiler.targets import devices

    prefix, comma, partial_name = incomplete.rpartition(",")
    names = [device.name for device in devices.list_devices()]
    return [f"{prefix}{comma}{name}" for name in names if name.startswith(partial_name)]


@dataclass(frozen=True)
class TargetOptions:
    """The targets, and their precision."""

    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="T[,T...]",
            show_default=False,
            autocompletion=_complete_target,
            help="Target to build for (see `tcc targets`). Can be repeated.",
        ),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            show_default=False,
            help="Precision. Default: fp32, or the first one of a target without fp32.",
        ),
    ] = None


def _complete_pass(incomplete: str) -> list[str]:
    from tcc.compiler.passes import PASSES, PIPELINES

    # Shells complete whole words, so repeat everything before the last comma.
    prefix, comma, partial_name = incomplete.rpartition(",")
    names = [*PIPELINES, *(graph_pass.name for graph_pass in PASSES)]
    return [f"{prefix}{comma}{name}" for name in names if name.startswith(partial_name)]


@dataclass(frozen=True)
class PassChoice:
    """Passes that replace the default ones, and whether each is checked."""

    passes: Annotated[
        str | None,
        typer.Option(
            "--passes",
            metavar="P[,P...]",
            show_default=False,
            autocompletion=_complete_pass,
            help="Run these passes or pipelines instead of the default ones (see `tcc dev "
            "passes`).",
        ),
    ] = None
    verify_passes: Annotated[
        bool,
        typer.Option(
            "--verify-passes",
            help="Run the graph before and after each pass on a random input, and compare "
            "the outputs.",
        ),
    ] = False

    def create_options(self, report: Report) -> PassOptions:
        """Return the pass options of a model."""
        return PassOptions(self.passes, self.verify_passes, report)


BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A folder that `tcc build` wrote.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run a program that was not built on this machine, and remember this for later "
        "runs. Also accept a signature by an unknown key.",
    ),
]


@dataclass(frozen=True)
class ProgramOptions:
    """How the program of a bundle runs, and whether one from another machine may run."""

    isa: Annotated[
        str | None,
        typer.Option(
            "--isa",
            metavar="NAME",
            show_default=False,
            help="Use this instruction set instead of the best one of this processor: "
            "x86-64-v2, ...",
        ),
    ] = None
    trust: Trust = False


@dataclass(frozen=True)
class ClusterOptions:
    """Where many tasks run: on this machine, on a Dask cluster, or as Slurm jobs."""

    dask: Annotated[
        str | None,
        typer.Option(
            metavar="local|ADDRESS",
            show_default=False,
            help="Run on a Dask cluster: `local` starts processes on this machine; or "
            "tcp://HOST:PORT.",
        ),
    ] = None
    slurm: Annotated[
        str | None,
        typer.Option(
            metavar="PARTITION", show_default=False, help="Run as jobs in this Slurm partition."
        ),
    ] = None

    def create_task_place(self, folder: Path, workers: int) -> "TaskLocation":
        """Return where tasks run, as the options choose; `folder` gets the logs of Slurm."""
        from tcc.compiler.support.task_runners import TaskLocation

        return TaskLocation(folder, self.dask, self.slurm, workers)


SlidesArgument = Annotated[
    list[Path], typer.Argument(metavar="SLIDE", help="Slide files.", show_default=False)
]
StepsOption = Annotated[
    Path | None,
    typer.Option(
        "--steps",
        metavar="DIR",
        show_default=False,
        help="Write a figure of each step into this folder.",
    ),
]


@dataclass(frozen=True)
class TissueOptions:
    """How the tissue of a slide is found, and the smallest share of tissue in a patch."""

    mpp: Annotated[
        float | None,
        typer.Option(
            "--mpp",
            metavar="UM",
            min=0.01,
            max=100.0,
            show_default=False,
            help="Micrometres per pixel of the slide, if its file has none or a wrong value.",
        ),
    ] = None
    mask_mpp: Annotated[
        float,
        typer.Option(
            "--mask-mpp",
            metavar="UM",
            min=0.1,
            max=1000.0,
            help="Micrometres per pixel of the mask.",
        ),
    ] = 4.0
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            metavar="RULE",
            help="Pixels that are tissue. `any`: dark in red, green or blue, or coloured. "
            "`wide`: dark in one of the three, and coloured. `paper`: dark in all "
            "three, and coloured; it misses pale tissue.",
        ),
    ] = "any"
    least_region: Annotated[
        float,
        typer.Option(
            "--least-region",
            metavar="UM2",
            min=0.0,
            help="Drop tissue regions with a smaller area.",
        ),
    ] = 0.0
    fill_holes: Annotated[
        float,
        typer.Option("--fill-holes", metavar="UM2", min=0.0, help="Fill holes up to this area."),
    ] = 0.0
    grow: Annotated[
        float,
        typer.Option("--grow", metavar="UM", min=0.0, help="Extend the tissue by this distance."),
    ] = 0.0
    least_tissue: Annotated[
        float,
        typer.Option(
            "--least-tissue",
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="A patch is used if at least this share of it is tissue.",
        ),
    ] = 0.5

    def choose(self) -> "TissueChoices":
        """Return how tissue is found.

        Raises:
            UserError: There is no such rule (E0601).
        """
        from tcc.compiler.slides import patch_request

        areas = (self.least_region, self.fill_holes, self.grow)
        return patch_request.build_tissue_choices(self.mask_mpp, self.rule, *areas)


PatchSide = Annotated[
    int | None,
    typer.Option(
        "--patch",
        metavar="PIXELS",
        min=1,
        max=8192,
        show_default=False,
        help="Side of a patch, in pixels of `--at`.",
    ),
]


@dataclass(frozen=True)
class PatchOptions:
    """The patches of a slide: the size of their pixels, their side, and their distance."""

    at: Annotated[
        float,
        typer.Option(
            "--at",
            metavar="UM",
            min=0.01,
            max=1000.0,
            show_default=False,
            help="Micrometres per pixel of the patches. Use the value of the network's "
            "training images.",
        ),
    ]
    patch: PatchSide = None
    stride: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=1,
            show_default=False,
            help="Distance between patches. Default: `--patch`. A smaller one makes patches "
            "overlap.",
        ),
    ] = None

    def find_stride(self, side: int) -> int:
        """Return the distance between patches, at most their side (E0601)."""
        from tcc.compiler.slides import patch_request

        return patch_request.resolve_stride(side, self.stride)


@dataclass(frozen=True)
class AreaOptions:
    """Which annotated areas of slides are tumour."""

    tumour: Annotated[
        list[str] | None,
        typer.Option(
            "--tumour",
            metavar="CLASS",
            show_default=False,
            help="Annotation class that is tumour. Can be repeated.",
        ),
    ] = None
    other_classes: Annotated[
        list[str] | None,
        typer.Option(
            "--other",
            metavar="CLASS",
            show_default=False,
            help="Annotation class that is not tumour. Can be repeated.",
        ),
    ] = None
    normal: Annotated[
        bool, typer.Option("--normal", help="Slides without annotations have no tumour.")
    ] = False
