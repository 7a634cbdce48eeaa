"""What a run says of a slide, as files."""

import csv
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides import (
    contours,
    geojson,
    mask_files,
    patch_grid,
    slide_file,
    slide_viewer,
    stored_result,
)
from tcc.compiler.slides.slide_job import SlideJob
from tcc.compiler.slides.slide_pictures import SlidePicture, png
from tcc.compiler.slides.stored_result import (
    DISCLAIMER,
    MAX_BYTES,
    SUMMARY,
    VERSION,
    BundleName,
    GridSize,
    SlideSize,
    SlideSummary,
    TumourDecision,
)
from tcc.compiler.slides.tissue_mask import TissueMask, TissueRule
from tcc.compiler.slides.tumour_classes import TumourRule
from tcc.compiler.support import json_records, regular_files

TUMOUR, NORMAL, TISSUE = (200, 0, 0), (0, 150, 60), (150, 150, 150)


@dataclass(frozen=True, eq=False)
class SlideResult:
    """Raw outputs (rows, columns, classes) of a job's patches, NaN where nothing was classified.

    `picture` is the slide made small, as `slide_pictures.small` returns it; `tissue_rule` is what
    the mask was found by, or `file`.
    """

    job: SlideJob
    rule: TumourRule
    mask: TissueMask
    picture: SlidePicture
    tissue_rule: TissueRule | Literal["file"]
    raw: NDArray[np.float32]

    @property
    def done(self) -> NDArray[np.bool_]:
        """Which patches were classified."""
        return np.asarray(~np.isnan(self.raw).any(axis=2), np.bool_)


def files(result: SlideResult) -> dict[str, bytes]:
    """Return the files of a result by name: the same bytes for the same slide, bundle, options."""
    done = result.done
    values = result.rule.probabilities(result.raw[done])
    likely = result.rule.tumour(values)
    taken = result.rule.positive(result.raw[done], likely)
    probabilities = np.full(result.raw.shape, np.nan, np.float32)
    probabilities[done] = values
    tumour = np.full(done.shape, np.nan)
    tumour[done] = likely
    positive = np.zeros(done.shape, np.bool_)
    positive[done] = taken
    grid, shown = result.job.grid, result.picture
    overlays = {
        f"{name}.png": png(slide_viewer.overlay(shown.pixels, shown.side, grid, tumour, name))
        for name in slide_viewer.MAPS
    }
    numbers = _numbers(result, probabilities, tumour)
    return {
        "probabilities.npy": _npy(probabilities),
        "probabilities.ome.tif": _ome(result, probabilities, tumour),
        "patches.csv": _csv(result, numbers, positive),
        "patches.geojson": geojson.text(_tiles(result, numbers, positive)),
        "regions.geojson": _regions(result, positive),
        "mask.png": png(np.where(result.mask.inside, np.uint8(255), np.uint8(0))),
        SUMMARY: stored_result.encode(summary(result, tumour, positive)),
        **overlays,
    }


def ours(path: Path) -> str | None:
    """Say why a folder is not replaced by a result; None where it is one itself."""
    try:
        with regular_files.opened(path / SUMMARY) as file:
            found = json_records.parse(file.read(MAX_BYTES))
    except (OSError, ValueError):
        return "it is not what a run wrote of a slide"
    same = isinstance(found, dict) and found.get("tcc_slide") == VERSION
    return None if same else "it is not what a run wrote of a slide"


def read_summary(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the figures of files that `files` gave."""
    figures: dict[str, Any] = json.loads(files[SUMMARY])
    return figures


def summary(
    result: SlideResult, tumour: NDArray[np.float64], positive: NDArray[np.bool_]
) -> SlideSummary:
    """Return the figures of a result.

    Args:
        result: What the patches gave.
        tumour: How likely each is tumour, NaN where nothing was classified.
        positive: Which are.
    """
    job, rule, done = result.job, result.rule, result.done
    grid, manifest = job.grid, job.bundle.manifest
    mm2 = (job.mpp / 1000) ** 2
    tissue = patch_grid.tissue_pixels(result.mask, grid.width, grid.height)
    # Bytes that are no text are shown as such.
    name = job.path.name.encode(errors="replace").decode()
    precision, weights = manifest.precision, manifest.weights
    return SlideSummary(
        tcc_slide=VERSION,
        notice=DISCLAIMER,
        slide=SlideSize(name, grid.width, grid.height, job.mpp),
        bundle=BundleName(
            manifest.model.name,
            manifest.target,
            precision,
            weights.digest,
            "; ".join(manifest.notices),
        ),
        grid=GridSize(*grid.shape, grid.span, grid.stride, grid.inset, job.size),
        tumour=TumourDecision(tuple(rule.labels[n] for n in rule.classes), rule.threshold),
        classes=tuple(rule.labels),
        tissue_mm2=tissue * mm2,
        background_share=1 - tissue / (grid.width * grid.height),
        patches=int(done.sum()),
        damaged=int((job.kept & ~done).sum()),
        left_out=int(job.kept.size - job.kept.sum()),
        positive=int(positive.sum()),
        positive_mm2=float(patch_grid.cell_areas(grid)[positive].sum() * mm2),
        mean_probability=float(np.mean(tumour[done])) if done.any() else None,
        highest_probability=float(np.max(tumour[done])) if done.any() else None,
        tissue_rule=result.tissue_rule,
    )


def _npy(values: NDArray[np.float32]) -> bytes:
    out = BytesIO()
    np.save(out, values, allow_pickle=False)
    return out.getvalue()


def _ome(
    result: SlideResult, probabilities: NDArray[np.float32], tumour: NDArray[np.float64]
) -> bytes:
    """Return the grid as OME-TIFF: a channel for each class, and the last for all of tumour."""
    library: Any = slide_file.load("tifffile")
    job, out = result.job, BytesIO()
    stack = np.concatenate([probabilities, tumour[:, :, None].astype(np.float32)], axis=2)
    side = job.grid.stride * job.mpp
    planes = np.ascontiguousarray(np.moveaxis(stack, 2, 0))
    # Of the contents, so that the same grid has the same bytes.
    own = uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(planes.tobytes()).hexdigest())
    about = {
        "axes": "CYX",
        "UUID": own.urn,
        "Channel": {"Name": [*result.rule.labels, "tumour (all)"]},
        "PhysicalSizeX": side,
        "PhysicalSizeY": side,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
    }
    more = {"photometric": "minisblack", "compression": "zlib", "software": "tcc"}
    library.imwrite(out, planes, ome=True, metadata=about, **more)
    return out.getvalue()


def _numbers(
    result: SlideResult, probabilities: NDArray[np.float32], tumour: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what `_names` names of each classified patch, in the order of the grid."""
    done = result.done
    shares = patch_grid.weights(result.job.grid, result.mask)[done] / result.job.grid.span**2
    return np.column_stack([shares, probabilities[done].astype(np.float64), tumour[done]])


def _names(result: SlideResult) -> list[str]:
    return ["tissue", *(f"p({label})" for label in result.rule.labels), "probability"]


def _rows(
    result: SlideResult, numbers: NDArray[np.float64]
) -> Iterator[tuple[int, int, list[float]]]:
    """Yield row, column and rounded numbers of each classified patch: of all they would be many."""
    for (row, column), own in zip(np.argwhere(result.done), numbers, strict=True):
        yield int(row), int(column), [round(value, 6) for value in own.tolist()]


def _csv(result: SlideResult, numbers: NDArray[np.float64], positive: NDArray[np.bool_]) -> bytes:
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "column", "x", "y", "side", *_names(result), "tumour"])
    for row, column, values in _rows(result, numbers):
        at = result.job.grid.corner(row, column)
        own = [f"{value:.6f}" for value in values]
        writer.writerow([row, column, *at, result.job.grid.span, *own, int(positive[row, column])])
    return out.getvalue().encode()


def _tiles(
    result: SlideResult, numbers: NDArray[np.float64], positive: NDArray[np.bool_]
) -> Iterator[dict[str, Any]]:
    """Yield each patch's cell as a tile of QuPath, with its numbers."""
    grid, names = result.job.grid, _names(result)
    inset, cell = grid.inset, grid.cell
    for row, column, values in _rows(result, numbers):
        x, y = (n + inset for n in grid.corner(row, column))
        right, bottom = min(x + cell, grid.width), min(y + cell, grid.height)
        ring = np.array([(x, y), (right, y), (right, bottom), (x, bottom), (x, y)])
        name, colour = ("Tumor", TUMOUR) if positive[row, column] else ("Normal", NORMAL)
        if right > x and bottom > y:
            about = dict(zip(names, values, strict=True))
            yield geojson.feature([[ring]], "tile", name, colour, about)


def _regions(result: SlideResult, positive: NDArray[np.bool_]) -> bytes:
    """Return outlines of what is tumour, and of the tissue."""
    grid = result.job.grid
    found = []
    for rings in contours.polygons(positive):
        edge = grid.width, grid.height
        moved = [np.minimum(ring * grid.stride + grid.inset, edge) for ring in rings]
        found.append(geojson.feature([moved], "annotation", "Tumor", TUMOUR))
    outlines = mask_files.outlines(grid, result.mask)
    found += [geojson.feature([one], "annotation", "Tissue", TISSUE) for one in outlines]
    return geojson.text(found)
