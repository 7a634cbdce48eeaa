"""Which patches of a slide are asked for, and what of it is tissue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tcc.compiler.slides import mask_files, patch_grid, slide_file, tissue_mask
from tcc.compiler.slides.patch_grid import PatchGrid
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.tissue_mask import TissueChoices, TissueMask, TissueRule, TissueSteps
from tcc.compiler.support import atomic_files
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import fail, typed

RULES = ("any", "wide", "paper")


@dataclass(frozen=True)
class MaskWish:
    """How the tissue of a slide is found, or the file that says what is tissue."""

    choices: "TissueChoices"
    file: Path | None = None

    @property
    def origin(self) -> TissueRule | Literal["file"]:
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
