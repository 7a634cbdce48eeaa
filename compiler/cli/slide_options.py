"""Options that the commands of `tcc slide` share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.support import atomic_files
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import fail, typed

if TYPE_CHECKING:
    from tcc.compiler.slides.patch_grid import PatchGrid
    from tcc.compiler.slides.slide_file import Slide
    from tcc.compiler.slides.tissue_mask import TissueChoices, TissueMask, TissueSteps

RULES = ("any", "wide", "paper")

SlidesArgument = Annotated[
    list[Path], typer.Argument(metavar="SLIDE", help="Slides' files.", show_default=False)
]
At = Annotated[
    float,
    typer.Option(
        "--at",
        metavar="UM",
        min=0.01,
        max=1000.0,
        show_default=False,
        help="Micrometres of a patch's pixel: those of the images that the network learned from.",
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        min=1,
        show_default=False,
        help="From a patch to the next; without it, `--patch`: less makes patches overlap.",
    ),
]
Mpp = Annotated[
    float | None,
    typer.Option(
        "--mpp",
        metavar="UM",
        min=0.01,
        max=100.0,
        show_default=False,
        help="Micrometres of a pixel of the slide, where its file does not say it, or wrongly.",
    ),
]
MaskMpp = Annotated[
    float,
    typer.Option("--mask-mpp", metavar="UM", min=0.1, max=1000.0, help="The same of the mask."),
]
Rule = Annotated[
    str,
    typer.Option(
        "--rule",
        metavar="RULE",
        help="What is tissue: `any`, what is dark in red, green or blue, or coloured; `wide`, what "
        "is both; `paper`, what is coloured and dark in all three, which loses pale tissue.",
    ),
]
LeastRegion = Annotated[
    float,
    typer.Option(
        "--least-region", metavar="UM2", min=0.0, help="Leave out regions of a smaller area."
    ),
]
FillHoles = Annotated[
    float,
    typer.Option("--fill-holes", metavar="UM2", min=0.0, help="Fill holes up to this area."),
]
Grow = Annotated[
    float, typer.Option("--grow", metavar="UM", min=0.0, help="Let tissue grow by so much.")
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
PatchOption = Annotated[
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
LeastTissue = Annotated[
    float,
    typer.Option(
        "--least-tissue",
        metavar="SHARE",
        min=0.0,
        max=1.0,
        help="The share of tissue from which a patch is taken.",
    ),
]

TumourArea = Annotated[
    list[str] | None,
    typer.Option(
        "--tumour", metavar="CLASS", show_default=False, help="A class of areas that is tumour."
    ),
]
OtherArea = Annotated[
    list[str] | None,
    typer.Option(
        "--other", metavar="CLASS", show_default=False, help="A class of areas that is none."
    ),
]
NormalSlides = Annotated[
    bool, typer.Option("--normal", help="Slides without annotations are free of tumour.")
]


@dataclass(frozen=True)
class MaskWish:
    """How the tissue of a slide is found, or the file that says what is tissue."""

    choices: "TissueChoices"
    file: Path | None = None

    @property
    def origin(self) -> str:
        """What says what is tissue, as a result records it: a rule, or `file`."""
        return "file" if self.file else self.choices.rule


@dataclass(frozen=True)
class PatchWish:
    """Which patches of a slide are wanted.

    They are `size` pixels wide and one begins every `stride`, in pixels of `at` micrometres; a
    share of `least` is tissue. `mpp` is the slide's resolution, where the user says it.
    """

    mask: MaskWish
    mpp: float | None
    at: float
    size: int
    stride: int
    least: float

    def grid(self, slide: "Slide") -> "PatchGrid":
        """Return the grid of a slide.

        Raises:
            UserError: It has no resolution (E1301), or the grid too many places (E1304).
        """
        from tcc.compiler.slides import patch_grid, slide_file

        scale = self.at / slide_file.resolution(slide)
        span = max(1, round(self.size * scale))
        return patch_grid.grid(slide, span, min(span, max(1, round(self.stride * scale))))


def stride_within(size: int, stride: int | None) -> int:
    """Return from where to where patches of a size lie; no farther than they are wide (E0601)."""
    if (stride or size) > size:
        raise fail("E0601", "--stride is at most --patch: nothing is left out", typed("--stride"))
    return stride or size


def choices(mpp: float, rule: str, least: float, fill: float, grow: float) -> "TissueChoices":
    """Return how tissue is found, as the options say.

    Raises:
        UserError: There is no such rule (E0601).
    """
    from tcc.compiler.slides.tissue_mask import TissueChoices

    match rule:
        case "any" | "wide" | "paper":
            return TissueChoices(mpp, rule, least, fill, grow)
        case _:
            help = f"rules are {', '.join(RULES)}"
            message = f"there is no rule `{rule[:40]}`"
            raise fail("E0601", message, typed("--rule"), help=help)


def check_stems(slides: Sequence[Path]) -> None:
    """Refuse slides of the same name, whose results would lie in one place (E0601)."""
    stems = [path.stem for path in slides]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        message = f"two slides are called {twice[0]}, and their results would lie in one folder"
        raise fail("E0601", message, typed(twice[0]), help="run them with another --output each")


def found_mask(
    report: Report, stages: Stages, slide: "Slide", wish: MaskWish
) -> "tuple[TissueMask, TissueSteps | None]":
    """Return the mask of a slide, and the steps to it where no file has it.

    Raises:
        UserError: The slide is damaged (E1302), has no resolution (E1301), or the file is no mask
            of it (E1306, E1307), or outlines are too many (E1323, E1324).
    """
    from tcc.compiler.slides import mask_files, slide_file, tissue_mask

    mpp = slide_file.resolution(slide)
    if wish.file:
        side = tissue_mask.side_for(slide, mpp, wish.choices.mpp)
        mask = mask_files.read(wish.file, slide, side)
        mask_files.check_outlines(wish.file, mask)
        return mask, None
    found = tissue_mask.find(slide, mpp, wish.choices, stages)
    mask_files.check_outlines(slide.path, found.mask)
    if found.lost > tissue_mask.MUCH:
        report.notice(
            f"{slide.path.name}: `--rule {wish.choices.rule}` leaves out {found.lost:.0%} of what "
            f"the default, `{tissue_mask.DEFAULT_RULE}`, takes for tissue: look at the mask, and "
            "edit it or take the default"
        )
    return found.mask, found


def write_steps(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write the pictures of steps into a folder of their own, which replaces one of such.

    Raises:
        UserError: Something else is there (E0602).
    """

    def ours(path: Path) -> str | None:
        plain = path.is_dir() and all(each.suffix == ".png" for each in path.iterdir())
        return None if plain else "it is no folder of pictures of steps"

    atomic_files.write_tree(folder, pictures, frozenset(), ours)
