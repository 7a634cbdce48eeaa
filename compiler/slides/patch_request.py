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
from tcc.compiler.support.diagnostics import fail, make_command_span

RULES = ("any", "wide", "paper")


@dataclass(frozen=True)
class MaskRequest:
    """How the tissue of a slide is found, or the file that says what is tissue."""

    choices: "TissueChoices"
    file: Path | None = None

    @property
    def origin(self) -> TissueRule | Literal["file"]:
        """What says what is tissue, as a result records it: a rule, or `file`."""
        return "file" if self.file else self.choices.rule


@dataclass(frozen=True)
class PatchRequest:
    """Which patches of a slide are wanted.

    They are `size` pixels wide and one begins every `stride`, in pixels of `at` micrometres; a
    share of `min_tissue` is tissue. `mpp` is the slide's resolution, where the user says it.
    """

    mask: MaskRequest
    mpp: float | None
    at: float
    size: int
    stride: int
    min_tissue: float

    def build_grid(self, slide: "Slide") -> "PatchGrid":
        """Return the grid of a slide.

        Raises:
            UserError: It has no resolution (E1301), or the grid too many places (E1304).
        """
        scale = self.at / slide_file.get_resolution(slide)
        span = max(1, round(self.size * scale))
        return patch_grid.build_grid(slide, span, min(span, max(1, round(self.stride * scale))))


def resolve_stride(size: int, stride: int | None) -> int:
    """Return from where to where patches of a size lie; no farther than they are wide (E0601)."""
    if (stride or size) > size:
        raise fail(
            "E0601",
            "--stride is at most --patch: nothing is left out",
            make_command_span("--stride"),
        )
    return stride or size


def build_tissue_choices(
    mpp: float, rule: str, min_area: float, fill: float, grow: float
) -> "TissueChoices":
    """Return how tissue is found, as the options say.

    Raises:
        UserError: There is no such rule (E0601).
    """
    match rule:
        case "any" | "wide" | "paper":
            return TissueChoices(mpp, rule, min_area, fill, grow)
        case _:
            help = f"rules are {', '.join(RULES)}"
            message = f"there is no rule `{rule[:40]}`"
            raise fail("E0601", message, make_command_span("--rule"), help=help)


def check_stems(slides: Sequence[Path]) -> None:
    """Refuse slides of the same name, whose results would lie in one place (E0601)."""
    stems = [path.stem for path in slides]
    duplicates = sorted({stem for stem in stems if stems.count(stem) > 1})
    if duplicates:
        message = (
            f"two slides are called {duplicates[0]}, and their results would lie in one folder"
        )
        raise fail(
            "E0601",
            message,
            make_command_span(duplicates[0]),
            help="run them with another --output each",
        )


def find_mask(
    report: Report, stages: Stages, slide: "Slide", request: MaskRequest
) -> "tuple[TissueMask, TissueSteps | None]":
    """Return the mask of a slide, and the steps to it where no file has it.

    Raises:
        UserError: The slide is damaged (E1302), has no resolution (E1301), or the file is no mask
            of it (E1306, E1307), or outlines are too many (E1323, E1324).
    """
    mpp = slide_file.get_resolution(slide)
    if request.file:
        side = tissue_mask.choose_side(slide, mpp, request.choices.mpp)
        mask = mask_files.read_mask(request.file, slide, side)
        mask_files.check_outlines(request.file, mask)
        return mask, None
    tissue_steps = tissue_mask.find_tissue(slide, mpp, request.choices, stages)
    mask_files.check_outlines(slide.path, tissue_steps.mask)
    if tissue_steps.lost_share > tissue_mask.MAX_LOST_SHARE:
        report.warn_text(
            f"{slide.path.name}: `--rule {request.choices.rule}` leaves out "
            f"{tissue_steps.lost_share:.0%} of what "
            f"the default, `{tissue_mask.DEFAULT_RULE}`, takes for tissue: look at the mask, and "
            "edit it or take the default"
        )
    return tissue_steps.mask, tissue_steps


def write_steps(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write the pictures of steps into a folder of their own, which replaces one of such.

    Raises:
        UserError: Something else is there (E0602).
    """

    def check_overwrite(path: Path) -> str | None:
        is_image_folder = path.is_dir() and all(child.suffix == ".png" for child in path.iterdir())
        return None if is_image_folder else "it is no folder of pictures of steps"

    atomic_files.write_tree(folder, pictures, frozenset(), check_overwrite)
