"""What a recipe's `augment:` may say: each change with how often and how much; none by default."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tcc.compiler.ir.graph import Input
from tcc.compiler.support.diagnostics import Span, fail


def _share(text: str) -> dict[str, Any]:
    return {"minimum": 0, "maximum": 1, "description": text}


def _amount(text: str, most: float) -> dict[str, Any]:
    return {"minimum": 0, "maximum": most, "description": text}


def _pair(text: str, least: float, most: float) -> dict[str, Any]:
    number = {"type": "number", "exclusiveMinimum": least, "maximum": most}
    return {"items": number, "minItems": 2, "maxItems": 2, "description": text}


PROBABILITY = _share("The share of images that it happens to.")


@dataclass(frozen=True, slots=True)
class Warp:
    """One affine map about the centre, bilinear; `border` is what comes in from outside."""

    probability: float = field(default=1.0, metadata=PROBABILITY)
    degrees: float = field(default=0.0, metadata=_amount("Rotation, to either side.", 180))
    scale: tuple[float, ...] = field(
        default=(1.0, 1.0), metadata=_pair("How many times as large, least and most.", 0, 10)
    )
    shift: float = field(
        default=0.0, metadata=_amount("Translation along each axis, as a share of the side.", 1)
    )
    shear: float = field(default=0.0, metadata=_amount("Shear along x, in degrees.", 60))
    border: Literal["mirror", "edge", "black"] = field(
        default="mirror", metadata={"description": "What lies beyond the image's edges."}
    )


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of the image, scaled to all of it (random resized crop)."""

    probability: float = field(default=1.0, metadata=PROBABILITY)
    area: tuple[float, ...] = field(
        default=(0.5, 1.0), metadata=_pair("Share of the area, least and most.", 0, 1)
    )
    aspect: float = field(
        default=1.0,
        metadata={
            "minimum": 1,
            "maximum": 10,
            "description": "Most times that the part is wider, or higher, than the image's shape.",
        },
    )


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the pixels: how much at most, and how often."""

    amount: float = field(metadata=_amount("The most that is drawn.", 255))
    probability: float = field(default=1.0, metadata=PROBABILITY)


@dataclass(frozen=True, slots=True)
class Erase:
    """A rectangle that is painted over (cutout, random erasing)."""

    probability: float = field(default=0.5, metadata=PROBABILITY)
    area: tuple[float, ...] = field(
        default=(0.02, 0.2), metadata=_pair("Share of the area, least and most.", 0, 1)
    )
    aspect: float = field(
        default=3.0,
        metadata={"minimum": 1, "maximum": 10, "description": "Most times wider, or higher."},
    )
    fill: Literal["mean", "black"] = field(
        default="mean", metadata={"description": "The image's mean colour, or black."}
    )


@dataclass(frozen=True, slots=True)
class Augmentation:
    """All changes; what a recipe leaves out does not happen."""

    horizontal_flip: float = field(default=0.0, metadata=_share("Share mirrored left to right."))
    vertical_flip: float = field(default=0.0, metadata=_share("Share mirrored top to bottom."))
    quarter_turns: float = field(
        default=0.0,
        metadata=_share("Share turned by 0, 90, 180 or 270 degrees; if not square, by 0 or 180."),
    )
    warp: Warp | None = field(
        default=None,
        metadata={"description": "Rotation, scale, translation and shear, as one affine map."},
    )
    crop: Crop | None = field(
        default=None, metadata={"description": "A part, scaled to the whole; one map with `warp`."}
    )
    blur: Change | None = field(
        default=None,
        metadata={"description": "Gaussian blur; `amount` is sigma in pixels, at most 8."},
    )
    brightness: Change | None = field(
        default=None, metadata={"description": "Levels times 1 +- amount, at most 1."}
    )
    contrast: Change | None = field(
        default=None,
        metadata={"description": "Distance from the image's mean grey times 1 +- amount."},
    )
    saturation: Change | None = field(
        default=None, metadata={"description": "Distance from the pixel's grey times 1 +- amount."}
    )
    hue: Change | None = field(
        default=None,
        metadata={"description": "Turn about the grey axis by up to `amount` degrees."},
    )
    grey: float = field(default=0.0, metadata=_share("Share that loses its colour."))
    gamma: Change | None = field(
        default=None, metadata={"description": "Levels to the power of (1 + amount) ** (-1 to 1)."}
    )
    stain: Change | None = field(
        default=None,
        metadata={"description": "Optical density of each channel times 1 +- amount, at most 1."},
    )
    noise: Change | None = field(
        default=None,
        metadata={"description": "Gaussian noise; `amount` is its deviation in levels."},
    )
    erase: Erase | None = field(default=None, metadata={"description": "A rectangle painted over."})


# All changes share one record, whose schema can only hold the largest of these.
LIMITS = {"blur": 8.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 180.0,
          "gamma": 4.0, "stain": 1.0, "noise": 128.0}  # fmt: skip
"""The most that `amount` may be, by the change's name."""
COLORFUL = ("saturation", "hue", "grey")


def check(record: Augmentation, source: Input, at: Span) -> None:
    """Refuse changes that a network's input cannot have; `at` is the network's place.

    Raises:
        UserError: It takes no image, or a grey one that cannot change its colour (E1215).
    """
    if source.preprocess is None:
        help = "leave `augment` out of the recipe"
        raise fail("E1215", "only images can be augmented; this network takes none", at, help=help)
    asked = [name for name in COLORFUL if getattr(record, name)]
    if asked and source.preprocess.color == "gray":
        message = f"this network takes grey images, which have no `{asked[0]}`"
        raise fail("E1215", message, at, help="leave it out of the recipe's `augment`")


def out_of_bounds(record: Augmentation) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield the keys of what no network can have, what is wrong with it, and what would help."""
    for name, most in LIMITS.items():
        change = getattr(record, name)
        if change is not None and change.amount > most:
            message = f"`augment: {name}` changes at most by {most:g}"
            yield (name, "amount"), message, f"`amount: {change.amount:g}` is more"
    for keys, pair in _pairs(record):
        if len(pair) != 2 or pair[0] > pair[1]:
            message = f"`augment: {': '.join(keys)}` takes two numbers, the smaller first"
            yield keys, message, ""


def _pairs(record: Augmentation) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    found: list[tuple[tuple[str, ...], tuple[float, ...]]] = []
    if record.warp:
        found.append((("warp", "scale"), record.warp.scale))
    found += [((n, "area"), r.area) for n in ("crop", "erase") if (r := getattr(record, n))]
    return found
