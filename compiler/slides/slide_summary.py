"""`summary.json` of a slide's result: one record gives its form, its check and its reader."""

import json
from math import isclose
from typing import Annotated, Literal

from msgspec import Meta

from tcc.compiler.slides.patch_grid import MOST_PATCHES, PatchGrid
from tcc.compiler.slides.tissue_mask import TissueRule
from tcc.compiler.support import json_records
from tcc.compiler.support.json_records import OmitDefault, Record, RecordError

VERSION = 1
SUMMARY = "summary.json"
MAX_BYTES = 1 << 24
"""Largest summary that is read."""
DISCLAIMER = "not a medical device; no diagnosis may rest on this"
_Length = Annotated[int, Meta(ge=1, le=(1 << 24) - 1)]
_Count = Annotated[int, Meta(ge=0, le=MOST_PATCHES)]
_Area = Annotated[float, Meta(ge=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Names = Annotated[tuple[str, ...], Meta(min_length=1)]


class SlideSize(Record, frozen=True):
    """A slide: its file's name, its pixels and their side in micrometres."""

    name: str
    width: _Length
    height: _Length
    micrometres_per_pixel: Annotated[float, Meta(ge=0.001, le=1e4)]


class BundleName(Record, frozen=True):
    """What classified it."""

    network: str
    target: str
    precision: str
    weights: str
    notice: str | None


class GridSize(Record, frozen=True):
    """How patches were cut, in pixels of level 0; a patch has `patch` pixels a side."""

    rows: _Length
    columns: _Length
    span: _Length
    stride: _Length
    inset: Annotated[int, Meta(ge=0)]
    patch: _Length


class TumourDecision(Record, frozen=True):
    """Which classes are tumour, and from which probability on; without one, the class taken."""

    classes: _Names
    threshold: _Share | None


class SlideSummary(Record, frozen=True):
    """The figures of a slide's result, and what they depend on."""

    tcc_slide: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    notice: str
    slide: SlideSize
    bundle: BundleName
    grid: GridSize
    tumour: TumourDecision
    classes: _Names
    tissue_mm2: _Area
    background_share: _Share
    patches: _Count
    damaged: _Count
    left_out: _Count
    positive: _Count
    positive_mm2: _Area
    mean_probability: _Share | None
    highest_probability: _Share | None
    tissue_rule: OmitDefault[TissueRule | Literal["file"] | None] = None
    """The rule that found the tissue, or `file`; None in results of before it was recorded."""

    @property
    def patch_grid(self) -> PatchGrid:
        """The grid that the patches lie on."""
        return PatchGrid(self.slide.width, self.slide.height, self.grid.span, self.grid.stride)


def encode(summary: SlideSummary) -> bytes:
    """Return the file of a summary."""
    plain = json_records.encode(summary)
    return (json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def decode(text: bytes) -> SlideSummary:
    """Return the summary in a file's bytes.

    Raises:
        ValueError: It is none, or its figures contradict each other.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"{SUMMARY} is larger than {MAX_BYTES >> 20} MiB")
    plain = json_records.parse(text)
    version = plain.get("tcc_slide") if isinstance(plain, dict) else None
    if version != VERSION or isinstance(version, bool):
        raise ValueError(
            f"`tcc_slide` of {SUMMARY} is `{str(version)[:40]}`, this tcc reads {VERSION}"
        )
    try:
        summary = json_records.decode(SlideSummary, plain)
    except RecordError as error:
        raise ValueError(f"{SUMMARY}: {str(error)[:200]}") from None
    _check_grid(summary)
    _check_figures(summary)
    return summary


def _check_grid(summary: SlideSummary) -> None:
    about, grid = summary.grid, summary.patch_grid
    if about.stride > about.span:
        raise ValueError(f"grid of {SUMMARY}: stride {about.stride} is larger than {about.span}")
    rows, columns = grid.shape
    if rows * columns > MOST_PATCHES:
        raise ValueError(f"grid of {SUMMARY}: it has more than {MOST_PATCHES:,} patches")
    if (about.rows, about.columns, about.inset) != (rows, columns, grid.inset):
        label = f"{rows} rows, {columns} columns and an inset of {grid.inset}"
        raise ValueError(f"grid of {SUMMARY}: the slide's size and the patches' make {label}")


def _check_figures(summary: SlideSummary) -> None:
    for names in (summary.classes, summary.tumour.classes):
        if len(set(names)) < len(names):
            raise ValueError(f"{SUMMARY}: a class is there twice")
    unknown = set(summary.tumour.classes) - set(summary.classes)
    if unknown:
        raise ValueError(f"tumour of {SUMMARY}: there is no class `{min(unknown)[:40]}`")
    rows, columns = summary.patch_grid.shape
    if summary.patches + summary.damaged + summary.left_out != rows * columns:
        raise ValueError(
            f"{SUMMARY}: patches, damaged and left_out add up to "
            f"{summary.patches + summary.damaged + summary.left_out:,}, the grid has "
            f"{rows * columns:,}"
        )
    slide = summary.slide
    area = slide.width * slide.height * (slide.micrometres_per_pixel / 1000) ** 2
    if not isclose(summary.tissue_mm2, (1 - summary.background_share) * area, rel_tol=1e-6):
        raise ValueError(f"{SUMMARY}: tissue_mm2 and background_share contradict each other")
