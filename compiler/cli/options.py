"""The options that several commands share, in groups: each field is an option of a command.

A command takes a group as a parameter, such as `source: SpecOptions`. `parameters.expand` hands
Typer the group's fields as options, and the command the filled record.
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result alone.")] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more; trace our own failures.")
    ] = False


def split_words(option: str, text: str | None) -> tuple[str, ...]:
    """Return what an option says between commas, nothing where it is not given.

    Raises:
        UserError: One is empty, or comes twice (E0601).
    """
    if text is None:
        return ()
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts) or len(set(parts)) < len(parts):
        raise fail(
            "E0601", f"`{option}` takes different words", make_command_span(f"{option} {text}")
        )
    return parts


def complete_spec(incomplete: str) -> list[str]:
    """Return the names of known specs that begin so."""
    from tcc.compiler.zoo import shipped

    known_names = (*shipped.list_specs(), *(path.parent.name for path in shipped.list_trained()))
    return [name for name in known_names if name.startswith(incomplete)]


SpecArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="SPEC",
        show_default=False,
        autocompletion=complete_spec,
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
        return chosen_spec.choose_spec(self.spec, self.settings, self.strict)


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

    def load(self, report: Report, choice: ChosenSpec) -> "WeightSource":
        """Return the weights for a spec; random ones are announced on standard error.

        Raises:
            UserError: Both are asked for (E0601), or the file does not fit the spec.
        """
        return weights_and_images.load_weights(report, choice, self.weights, self.seed)

    def find_file(self, choice: ChosenSpec) -> Path | None:
        """Return the weights that are named, or the project's; None for random or the zoo's."""
        return weights_and_images.find_weights_file(choice, self.weights, self.seed)


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
        from tcc.compiler.driver.calibration import find_method

        return find_method(self.method, guard=self.guard)


def _complete_target(incomplete: str) -> list[str]:
    from tcc.compiler.targets import devices

    prefix, comma, partial_name = incomplete.rpartition(",")
    names = [device.name for device in devices.list_devices()]
    return [f"{prefix}{comma}{name}" for name in names if name.startswith(partial_name)]


@dataclass(frozen=True)
class TargetOptions:
    """The targets, and the precision at which they are built."""

    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="T[,T...]",
            show_default=False,
            autocompletion=_complete_target,
            help="What to build for (see `tcc targets`); may be repeated.",
        ),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(metavar="P", show_default=False, help="Precision; fp32 by default."),
    ] = None


def _complete_pass(incomplete: str) -> list[str]:
    from tcc.compiler.passes import PASSES, PIPELINES

    # Shells complete whole words: what is before the last comma is repeated.
    prefix, comma, partial_name = incomplete.rpartition(",")
    names = [*PIPELINES, *(graph_pass.name for graph_pass in PASSES)]
    return [f"{prefix}{comma}{name}" for name in names if name.startswith(partial_name)]


@dataclass(frozen=True)
class PassChoice:
    """The passes that run in place of the usual ones, and whether each is checked."""

    passes: Annotated[
        str | None,
        typer.Option(
            "--passes",
            metavar="P[,P...]",
            show_default=False,
            autocompletion=_complete_pass,
            help="Run these passes or pipelines instead of the usual ones (see `tcc dev passes`).",
        ),
    ] = None
    verify_passes: Annotated[
        bool,
        typer.Option(
            "--verify-passes",
            help="Run the graph before and after each pass on a random input, and compare.",
        ),
    ] = False

    def create_options(self, report: Report) -> PassOptions:
        """Return how models go through passes."""
        return PassOptions(self.passes, self.verify_passes, report)


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

    def create_task_place(self, folder: Path, workers: int) -> "TaskLocation":
        """Return where tasks run, as the options say; `folder` is where Slurm's logs go."""
        from tcc.compiler.support.task_runners import TaskLocation

        return TaskLocation(folder, self.dask, self.slurm, workers)


SlidesArgument = Annotated[
    list[Path], typer.Argument(metavar="SLIDE", help="Slides' files.", show_default=False)
]
StepsOption = Annotated[
    Path | None,
    typer.Option(
        "--steps",
        metavar="DIR",
        show_default=False,
        help="Write a picture of each step there.",
    ),
]


@dataclass(frozen=True)
class TissueOptions:
    """How the tissue of a slide is found, and how much of a patch has to be tissue."""

    mpp: Annotated[
        float | None,
        typer.Option(
            "--mpp",
            metavar="UM",
            min=0.01,
            max=100.0,
            show_default=False,
            help="Micrometres of a pixel of the slide, where its file does not say it, or wrongly.",
        ),
    ] = None
    mask_mpp: Annotated[
        float,
        typer.Option("--mask-mpp", metavar="UM", min=0.1, max=1000.0, help="The same of the mask."),
    ] = 4.0
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            metavar="RULE",
            help="What is tissue: `any`, what is dark in red, green or blue, or coloured; "
            "`wide`, what is both; `paper`, what is coloured and dark in all three, which loses "
            "pale tissue.",
        ),
    ] = "any"
    least_region: Annotated[
        float,
        typer.Option(
            "--least-region", metavar="UM2", min=0.0, help="Leave out regions of a smaller area."
        ),
    ] = 0.0
    fill_holes: Annotated[
        float,
        typer.Option("--fill-holes", metavar="UM2", min=0.0, help="Fill holes up to this area."),
    ] = 0.0
    grow: Annotated[
        float, typer.Option("--grow", metavar="UM", min=0.0, help="Let tissue grow by so much.")
    ] = 0.0
    least_tissue: Annotated[
        float,
        typer.Option(
            "--least-tissue",
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="The share of tissue from which a patch is taken.",
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
        help="The side of a patch, in pixels of `--at`.",
    ),
]


@dataclass(frozen=True)
class PatchOptions:
    """The patches of a slide: the size of their pixels, their side, and how they lie."""

    at: Annotated[
        float,
        typer.Option(
            "--at",
            metavar="UM",
            min=0.01,
            max=1000.0,
            show_default=False,
            help="Micrometres of a patch's pixel: those of the images that the network learned "
            "from.",
        ),
    ]
    patch: PatchSide = None
    stride: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=1,
            show_default=False,
            help="From a patch to the next; without it, `--patch`: less makes patches overlap.",
        ),
    ] = None

    def find_stride(self, side: int) -> int:
        """Return from where to where patches of a side lie; no farther than it is wide (E0601)."""
        from tcc.compiler.slides import patch_request

        return patch_request.resolve_stride(side, self.stride)


@dataclass(frozen=True)
class AreaOptions:
    """Which areas that somebody drew on slides are tumour."""

    tumour: Annotated[
        list[str] | None,
        typer.Option(
            "--tumour", metavar="CLASS", show_default=False, help="A class of areas that is tumour."
        ),
    ] = None
    other_classes: Annotated[
        list[str] | None,
        typer.Option(
            "--other", metavar="CLASS", show_default=False, help="A class of areas that is none."
        ),
    ] = None
    normal: Annotated[
        bool, typer.Option("--normal", help="Slides without annotations are free of tumour.")
    ] = False
