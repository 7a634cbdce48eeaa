"""`summary.json` of a slide's result: one record gives its form, its check and its reader."""

import json
from dataclasses import dataclass, field
from math import isclose
from typing import Any, get_args

from tcc.compiler.slides.patch_grid import MOST_PATCHES, PatchGrid
from tcc.compiler.slides.tissue_mask import TissueRule
from tcc.compiler.support import json_records, strict_json

VERSION = 1
SUMMARY = "summary.json"
MAX_BYTES = 1 << 24
"""Largest summary that is read."""
DISCLAIMER = "not a medical device; no diagnosis may rest on this"
_LENGTH: Any = {"minimum": 1, "maximum": (1 << 24) - 1}
_COUNT: Any = {"minimum": 0, "maximum": MOST_PATCHES}
_AREA: Any = {"minimum": 0}
_SHARE: Any = {"minimum": 0, "maximum": 1}


@dataclass(frozen=True, slots=True)
class SlideSize:
    """A slide: its file's name, its pixels and their side in micrometres."""

    name: str
    width: int = field(metadata=_LENGTH)
    height: int = field(metadata=_LENGTH)
    micrometres_per_pixel: float = field(metadata={"minimum": 0.001, "maximum": 1e4})


@dataclass(frozen=True, slots=True)
class BundleName:
    """What classified it."""

    network: str
    target: str
    precision: str
    weights: str
    notice: str | None


@dataclass(frozen=True, slots=True)
class GridSize:
    """How patches were cut, in pixels of level 0; a patch has `patch` pixels a side."""

    rows: int = field(metadata=_LENGTH)
    columns: int = field(metadata=_LENGTH)
    span: int = field(metadata=_LENGTH)
    stride: int = field(metadata=_LENGTH)
    inset: int = field(metadata={"minimum": 0})
    patch: int = field(metadata=_LENGTH)


@dataclass(frozen=True, slots=True)
class TumourDecision:
    """Which classes are tumour, and from which probability on; without one, the class taken."""

    classes: tuple[str, ...] = field(metadata={"minItems": 1, "uniqueItems": True})
    threshold: float | None = field(metadata=_SHARE)


@dataclass(frozen=True, slots=True)
class SlideSummary:
    """The figures of a slide's result, and what they depend on."""

    tcc_slide: int = field(metadata={"const": VERSION})
    notice: str
    slide: SlideSize
    bundle: BundleName
    grid: GridSize
    tumour: TumourDecision
    classes: tuple[str, ...] = field(metadata={"minItems": 1, "uniqueItems": True})
    tissue_mm2: float = field(metadata=_AREA)
    background_share: float = field(metadata=_SHARE)
    patches: int = field(metadata=_COUNT)
    damaged: int = field(metadata=_COUNT)
    left_out: int = field(metadata=_COUNT)
    positive: int = field(metadata=_COUNT)
    positive_mm2: float = field(metadata=_AREA)
    mean_probability: float | None = field(metadata=_SHARE)
    highest_probability: float | None = field(metadata=_SHARE)
    tissue_rule: str | None = field(
        default=None, metadata={"default": None, "enum": [*get_args(TissueRule), "file", None]}
    )
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
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    if len(text) > MAX_BYTES:
        raise ValueError(f"{SUMMARY} is larger than {MAX_BYTES >> 20} MiB")
    plain = strict_json.parse(text)
    version = plain.get("tcc_slide") if isinstance(plain, dict) else None
    if version != VERSION or isinstance(version, bool):
        raise ValueError(
            f"`tcc_slide` of {SUMMARY} is `{str(version)[:40]}`, this tcc reads {VERSION}"
        )
    error = best_match(Draft202012Validator(_SCHEMA).iter_errors(plain))
    if error:
        place = "/".join(map(str, error.absolute_path)) or "the whole"
        raise ValueError(f"{place} of {SUMMARY}: {error.message[:160]}")
    summary: SlideSummary = json_records.decode(SlideSummary, plain)
    _check_grid(summary)
    _check_figures(summary)
    return summary


_SCHEMA = json_records.schema(SlideSummary)


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
