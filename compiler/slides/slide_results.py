"""Write the files of a slide's result."""

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
    saved_result,
    slide_file,
    slide_viewer,
)
from tcc.compiler.slides.saved_result import (
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
from tcc.compiler.slides.slide_images import SlideImage, encode_png
from tcc.compiler.slides.slide_job import SlideJob
from tcc.compiler.slides.tissue_mask import TissueMask, TissueRule
from tcc.compiler.slides.tumour_classes import TumourRule
from tcc.compiler.support import json_records, regular_files

TUMOUR_COLOUR, NORMAL_COLOUR, TISSUE_COLOUR = (200, 0, 0), (0, 150, 60), (150, 150, 150)


@dataclass(frozen=True, eq=False)
class SlideResult:
    """The outputs of a job, and everything that its files contain.

    Attributes:
        job: The job.
        rule: The rule for tumour.
        mask: The tissue mask.
        image: The downscaled slide.
        tissue_rule: The rule that found the mask, or `file`.
        raw_outputs: Raw outputs (rows, columns, classes), NaN where nothing was classified.
    """

    job: SlideJob
    rule: TumourRule
    mask: TissueMask
    image: SlideImage
    tissue_rule: TissueRule | Literal["file"]
    raw_outputs: NDArray[np.float32]

    @property
    def is_classified(self) -> NDArray[np.bool_]:
        """Whether each patch was classified, bool (rows, columns)."""
        return np.asarray(~np.isnan(self.raw_outputs).any(axis=2), np.bool_)


def encode_files(slide_result: SlideResult) -> dict[str, bytes]:
    """Return the files of a result by name; they depend only on slide, bundle and options."""
    is_classified = slide_result.is_classified
    class_probabilities = slide_result.rule.compute_probabilities(
        slide_result.raw_outputs[is_classified]
    )
    tumour_probabilities = slide_result.rule.sum_tumour_probabilities(class_probabilities)
    is_positive = slide_result.rule.classify_patches(
        slide_result.raw_outputs[is_classified], tumour_probabilities
    )
    probabilities = np.full(slide_result.raw_outputs.shape, np.nan, np.float32)
    probabilities[is_classified] = class_probabilities
    tumour = np.full(is_classified.shape, np.nan)
    tumour[is_classified] = tumour_probabilities
    positive = np.zeros(is_classified.shape, np.bool_)
    positive[is_classified] = is_positive
    grid, image = slide_result.job.grid, slide_result.image
    overlays = {
        f"{name}.png": encode_png(
            slide_viewer.draw_overlay(image.pixels, image.side, grid, tumour, name)
        )
        for name in slide_viewer.MAPS
    }
    numbers = _stack_columns(slide_result, probabilities, tumour)
    return {
        "probabilities.npy": _encode_npy(probabilities),
        "probabilities.ome.tif": _encode_ome_tiff(slide_result, probabilities, tumour),
        "patches.csv": _encode_csv(slide_result, numbers, positive),
        "patches.geojson": geojson.encode_features(_iterate_tiles(slide_result, numbers, positive)),
        "regions.geojson": _encode_regions(slide_result, positive),
        "mask.png": encode_png(np.where(slide_result.mask.inside, np.uint8(255), np.uint8(0))),
        SUMMARY: saved_result.encode_summary(build_summary(slide_result, tumour, positive)),
        **overlays,
    }


def check_overwrite(path: Path) -> str | None:
    """Return the reason not to replace a folder by a result; None if it is a result."""
    try:
        with regular_files.open_file(path / SUMMARY) as file:
            document = json_records.parse(file.read(MAX_BYTES))
    except (OSError, ValueError):
        return "it is not a result folder of a slide"
    is_result = isinstance(document, dict) and document.get("tcc_slide") == VERSION
    return None if is_result else "it is not a result folder of a slide"


def read_summary(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the summary from the files of `encode_files`."""
    figures: dict[str, Any] = json.loads(files[SUMMARY])
    return figures


def build_summary(
    slide_result: SlideResult, tumour: NDArray[np.float64], positive: NDArray[np.bool_]
) -> SlideSummary:
    """Return the summary of a result.

    Args:
        slide_result: The result.
        tumour: The tumour probability of each patch, NaN where nothing was classified.
        positive: Whether each patch is tumour.
    """
    job, rule, is_classified = slide_result.job, slide_result.rule, slide_result.is_classified
    grid, manifest = job.grid, job.bundle.manifest
    mm2 = (job.mpp / 1000) ** 2
    tissue = patch_grid.count_tissue_pixels(slide_result.mask, grid.width, grid.height)
    # Replace bytes that are invalid UTF-8.
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
        patches=int(is_classified.sum()),
        damaged=int((job.selected & ~is_classified).sum()),
        left_out=int(job.selected.size - job.selected.sum()),
        positive=int(positive.sum()),
        positive_mm2=float(patch_grid.compute_cell_areas(grid)[positive].sum() * mm2),
        mean_probability=float(np.mean(tumour[is_classified])) if is_classified.any() else None,
        highest_probability=float(np.max(tumour[is_classified])) if is_classified.any() else None,
        tissue_rule=slide_result.tissue_rule,
    )


def _encode_npy(probabilities: NDArray[np.float32]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, probabilities, allow_pickle=False)
    return buffer.getvalue()


def _encode_ome_tiff(
    slide_result: SlideResult, probabilities: NDArray[np.float32], tumour: NDArray[np.float64]
) -> bytes:
    """Return the grid as OME-TIFF: one channel for each class, and the last for all tumour."""
    library: Any = slide_file.load_module("tifffile")
    job, buffer = slide_result.job, BytesIO()
    stack = np.concatenate([probabilities, tumour[:, :, None].astype(np.float32)], axis=2)
    side = job.grid.stride * job.mpp
    planes = np.ascontiguousarray(np.moveaxis(stack, 2, 0))
    # Derived from the contents, so that the file is reproducible.
    grid_uuid = uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(planes.tobytes()).hexdigest())
    metadata = {
        "axes": "CYX",
        "UUID": grid_uuid.urn,
        "Channel": {"Name": [*slide_result.rule.labels, "tumour (all)"]},
        "PhysicalSizeX": side,
        "PhysicalSizeY": side,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
    }
    options = {"photometric": "minisblack", "compression": "zlib", "software": "tcc"}
    library.imwrite(buffer, planes, ome=True, metadata=metadata, **options)
    return buffer.getvalue()


def _stack_columns(
    slide_result: SlideResult, probabilities: NDArray[np.float32], tumour: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the columns of `_list_columns` for each classified patch, in the grid's order."""
    is_classified = slide_result.is_classified
    shares = (
        patch_grid.count_patch_pixels(slide_result.job.grid, slide_result.mask)[is_classified]
        / slide_result.job.grid.span**2
    )
    return np.column_stack(
        [shares, probabilities[is_classified].astype(np.float64), tumour[is_classified]]
    )


def _list_columns(slide_result: SlideResult) -> list[str]:
    return ["tissue", *(f"p({label})" for label in slide_result.rule.labels), "probability"]


def _iterate_rows(
    slide_result: SlideResult, numbers: NDArray[np.float64]
) -> Iterator[tuple[int, int, list[float]]]:
    """Yield row, column and rounded numbers of each classified patch, to save memory."""
    for (row, column), row_numbers in zip(
        np.argwhere(slide_result.is_classified), numbers, strict=True
    ):
        yield int(row), int(column), [round(number, 6) for number in row_numbers.tolist()]


def _encode_csv(
    slide_result: SlideResult, numbers: NDArray[np.float64], positive: NDArray[np.bool_]
) -> bytes:
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "column", "x", "y", "side", *_list_columns(slide_result), "tumour"])
    for row, column, row_numbers in _iterate_rows(slide_result, numbers):
        corner = slide_result.job.grid.compute_corner(row, column)
        cells = [f"{number:.6f}" for number in row_numbers]
        writer.writerow(
            [row, column, *corner, slide_result.job.grid.span, *cells, int(positive[row, column])]
        )
    return buffer.getvalue().encode()


def _iterate_tiles(
    slide_result: SlideResult, numbers: NDArray[np.float64], positive: NDArray[np.bool_]
) -> Iterator[dict[str, Any]]:
    """Yield each patch's cell as a QuPath tile, with its measurements."""
    grid, names = slide_result.job.grid, _list_columns(slide_result)
    inset, cell = grid.inset, grid.cell
    for row, column, row_numbers in _iterate_rows(slide_result, numbers):
        x, y = (n + inset for n in grid.compute_corner(row, column))
        end_column, end_row = min(x + cell, grid.width), min(y + cell, grid.height)
        ring = np.array([(x, y), (end_column, y), (end_column, end_row), (x, end_row), (x, y)])
        name, colour = (
            ("Tumor", TUMOUR_COLOUR) if positive[row, column] else ("Normal", NORMAL_COLOUR)
        )
        if end_column > x and end_row > y:
            measurements = dict(zip(names, row_numbers, strict=True))
            yield geojson.build_feature([[ring]], "tile", name, colour, measurements)


def _encode_regions(slide_result: SlideResult, positive: NDArray[np.bool_]) -> bytes:
    """Return the outlines of tumour and tissue as GeoJSON."""
    grid = slide_result.job.grid
    features = []
    for rings in contours.find_polygons(positive):
        edge = grid.width, grid.height
        scaled_rings = [np.minimum(ring * grid.stride + grid.inset, edge) for ring in rings]
        features.append(geojson.build_feature([scaled_rings], "annotation", "Tumor", TUMOUR_COLOUR))
    outlines = mask_files.compute_outlines(grid, slide_result.mask)
    features += [
        geojson.build_feature([polygon], "annotation", "Tissue", TISSUE_COLOUR)
        for polygon in outlines
    ]
    return geojson.encode_features(features)
