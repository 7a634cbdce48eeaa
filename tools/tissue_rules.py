"""Compare tissue detection rules on synthetic slides with known masks, and on real slides.

    python tools/tissue_rules.py [SLIDE...]

For each synthetic slide and rule, print the share of tissue that the rule misses and the share of
its mask that is not tissue. A real slide has no known mask. For each named slide, print the share
of the slide in each rule's mask, and the share of non-paper pixels outside it.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides import slide_file, slide_images, tissue_mask
from tcc.compiler.slides.tissue_mask import TissueChoices, TissueRule, TissueSteps
from tcc.compiler.support.progress import silent

Pixels = NDArray[np.uint8]
Inside = NDArray[np.bool_]
PAPER = (243, 243, 244)
STAINS = {
    "purple": (110, 60, 140),  # dense nuclei
    "pink": (205, 120, 170),  # stroma
    "pale": (228, 190, 215),  # stroma of a weak stain
    "faint": (236, 216, 230),  # its edge
    "orange": (225, 150, 130),  # blood, keratin
    "brown": (140, 95, 60),  # DAB
    "blue": (150, 160, 205),  # haematoxylin alone
}
"""Colours of tissue: those of haematoxylin and eosin, and of DAB."""
SLIDES: dict[str, tuple[tuple[str, float], ...]] = {
    "only glass": (),
    "only purple": (("purple", 0.3),),
    "only pink": (("pink", 0.3),),
    "only pale": (("pale", 0.3),),
    "purple and pink": (("purple", 0.1), ("pink", 0.3)),
    "purple and pale": (("purple", 0.1), ("pale", 0.3)),
    "pink and pale": (("pink", 0.15), ("pale", 0.2)),
    "all of H&E": (("purple", 0.1), ("pink", 0.15), ("pale", 0.1), ("faint", 0.05)),
    "blood": (("purple", 0.05), ("pink", 0.2), ("orange", 0.1)),
    "DAB": (("brown", 0.1), ("blue", 0.3)),
    "little tissue": (("purple", 0.01), ("pink", 0.02), ("pale", 0.01)),
    "much tissue": (("purple", 0.3), ("pink", 0.4), ("pale", 0.2)),
}
"""Synthetic slides: the share of the slide that each stain covers."""
SIDE, CELL, MPP = 1024, 32, 1.0
NOISE = 6.0
"""Standard deviation of a pixel's colour."""
MIN_DIFFERENCE = 12
"""The least difference of a channel from paper in pixel values: twice the noise of a scan."""


def draw(stains: tuple[tuple[str, float], ...], seed: int) -> tuple[Pixels, Inside]:
    """Return the pixels of a slide, and its tissue mask.

    Each stain covers cells of a square grid. They are drawn with noise over paper that is a little
    darker at its edge, as under a lamp.
    """
    random = np.random.default_rng(seed)
    cell_order = random.permutation((SIDE // CELL) ** 2)
    kinds = np.zeros((SIDE // CELL) ** 2, np.int64)
    start = 0
    for number, (_, share) in enumerate(stains, 1):
        count = round(share * len(cell_order))
        kinds[cell_order[start : start + count]] = number
        start += count
    cells = kinds.reshape(SIDE // CELL, -1).repeat(CELL, axis=0).repeat(CELL, axis=1)
    colours = np.array([PAPER, *(STAINS[name] for name, _ in stains)], np.float64)
    across = np.abs(np.linspace(-1, 1, SIDE))
    shade = 1 - 0.02 * np.maximum(across[:, None], across)[:, :, None]
    pixels = colours[cells] * shade + random.normal(0, NOISE, (SIDE, SIDE, 3))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), cells > 0


def compare(pixels: Pixels, inside: Inside, folder: Path) -> Iterator[tuple[str, float, float]]:
    """Yield each rule with the share of tissue outside its mask, and of its mask outside tissue."""
    path = folder / "slide.png"
    path.write_bytes(slide_images.encode_png(pixels))
    for rule, steps in find_all(path, MPP):
        mask = steps.mask.inside
        side = steps.mask.side
        expected = inside[::side, ::side]  # squares of the mask are within the cells
        missed = float((expected & ~mask).sum() / max(1, expected.sum()))
        yield rule, missed, float((mask & ~expected).sum() / max(1, mask.sum()))


def find_all(path: Path, mpp: float | None) -> Iterator[tuple[TissueRule, TissueSteps]]:
    """Yield each rule with its mask of a slide."""
    with slide_file.open_slide(path, mpp) as slide:
        for rule in get_args(TissueRule):
            choices = TissueChoices(rule=rule)
            yield rule, tissue_mask.find_tissue(slide, slide.mpp or 0.5, choices, silent)


def describe(path: Path) -> Iterator[tuple[str, float, float]]:
    """Yield each rule with its mask's share of a slide, and the share of non-paper outside it."""
    with slide_file.open_slide(path) as slide:
        pixel_size = slide.mpp
    for rule, steps in find_all(path, pixel_size or 0.5):
        mask = steps.mask.inside
        image = steps.image.astype(np.int64)
        # Paper is the most frequent bright value of each channel.
        paper = [
            128 + int(np.bincount(image[:, :, n].ravel(), minlength=256)[128:].argmax())
            for n in range(3)
        ]
        tissue = (np.abs(image - paper) > MIN_DIFFERENCE).any(axis=2)
        yield rule, float(mask.mean()), float((tissue & ~mask).sum() / max(1, tissue.sum()))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("slides", nargs="*", type=Path, help="slides without masks")
    options = parser.parse_args()
    print("synthetic slide; rule: missed tissue, share of the mask that is not tissue")
    with tempfile.TemporaryDirectory() as folder:
        for seed, (name, stains) in enumerate(SLIDES.items()):
            rows = compare(*draw(stains, seed), Path(folder))
            print(
                f"{name:16}",
                *(f"{rule}: {missed:6.1%} {excess:6.1%}" for rule, missed, excess in rows),
                sep="  ",
            )
    for path in options.slides:
        rows = describe(path)
        print(
            f"{path.name}",
            *(f"{rule}: {covered:6.1%} {missed:6.1%}" for rule, covered, missed in rows),
            sep="  ",
        )


if __name__ == "__main__":
    main()
