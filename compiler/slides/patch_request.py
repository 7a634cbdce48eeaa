"""Requests for the patches and the tissue mask of a slide."""

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
    """How to find the tissue of a slide, or the file with its mask."""

    choices: "TissueChoices"
    file: Path | None = None

    @property
    def origin(self) -> TissueRule | Literal["file"]:
        """The origin of the mask, as recorded in results: a rule, or `file`."""
        return "file" if self.file else self.choices.rule


@dataclass(frozen=True)
class PatchRequest:
    """Parameters of a slide's patches.

    Attributes:
        mask: How to find the tissue.
        mpp: The slide's resolution if the user gives it, in micrometres per pixel.
        at: The resolution of the patches in micrometres per pixel.
        size: The side of a patch in pixels of `at`.
        stride: The distance between patches in pixels of `at`.
        min_tissue: The minimum share of tissue in a patch.
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
            UserError: The slide has no resolution (E1301), or the grid has too many patches
                (E1304).
        """
        scale = self.at / slide_file.get_resolution(slide)
        span = max(1, round(self.size * scale))
        return patch_grid.build_grid(slide, span, min(span, max(1, round(self.stride * scale))))


def resolve_stride(size: int, stride: int | None) -> int:
    """Return the distance between patches; by default, and at most, their size (E0601)."""
    if (stride or size) > size:
        raise fail(
            "E0601",
            f"--stride must be at most --patch ({size}), so that no tissue is skipped",
            make_command_span("--stride"),
        )
    return stride or size


def build_tissue_choices(
    mpp: float, rule: str, min_area: float, fill: float, grow: float
) -> "TissueChoices":
    """Return the tissue options.

    Raises:
        UserError: The rule is unknown (E0601).
    """
    match rule:
        case "any" | "wide" | "paper":
            return TissueChoices(mpp, rule, min_area, fill, grow)
        case _:
            help = f"the rules are {', '.join(RULES)}"
            message = f"there is no rule `{rule[:40]}`"
            raise fail("E0601", message, make_command_span("--rule"), help=help)


def check_stems(slides: Sequence[Path]) -> None:
    """Reject slides with the same name, because their results would have the same path (E0601)."""
    stems = [path.stem for path in slides]
    duplicates = sorted({stem for stem in stems if stems.count(stem) > 1})
    if duplicates:
        message = (
            f"two slides are named {duplicates[0]}, so their results would be in the same folder"
        )
        raise fail(
            "E0601",
            message,
            make_command_span(duplicates[0]),
            help="rename one of them, or run them separately with different --output folders",
        )


def find_mask(
    report: Report, stages: Stages, slide: "Slide", request: MaskRequest
) -> "tuple[TissueMask, TissueSteps | None]":
    """Return the mask of a slide, and its steps unless it is from a file.

    Raises:
        UserError: The slide is damaged (E1302) or has no resolution (E1301), the file is not a mask
            of this slide (E1306, E1307), or there are too many outlines (E1323, E1324).
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
            f"{slide.path.name}: `--rule {request.choices.rule}` omits "
            f"{tissue_steps.lost_share:.0%} of the tissue that the default rule, "
            f"`{tissue_mask.DEFAULT_RULE}`, finds; check the mask, then edit it or use the default"
        )
    return tissue_steps.mask, tissue_steps


def write_steps(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Write the images of the steps into a folder; an earlier folder of them is replaced.

    Raises:
        UserError: The path contains other files (E0602).
    """

    def check_overwrite(path: Path) -> str | None:
        is_image_folder = path.is_dir() and all(child.suffix == ".png" for child in path.iterdir())
        return None if is_image_folder else "it is not a folder of step images"

    atomic_files.write_tree(folder, pictures, frozenset(), check_overwrite)
