"""Text tables of how an int8 model compares with the fp32 model, by output."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcc.compiler.reference.accuracy_floor import FloorBounds, Qualities, Quality
    from tcc.compiler.reference.expected_loss import ExpectedLoss

COLUMNS = ("mean cosine", "lowest", "correlation", "error", "same", "probability error")
"""Columns for an output; `error` is relative to the spread of the fp32 values, `same` the share of
equal decisions."""


def format_cells(quality: "Quality") -> tuple[str, ...]:
    """Return the cells of `COLUMNS` for one output; `-` for a missing figure."""
    return (
        _format_number(quality.cosine, ".6f"),
        _format_number(quality.least_cosine, ".6f"),
        _format_number(quality.correlation, ".4f"),
        _format_number(quality.error, ".3g"),
        _format_number(quality.agreement, ".1%"),
        _format_number(quality.difference, ".1e"),
    )


def format_lines(qualities: "Qualities") -> Iterator[str]:
    """Yield one line for each output, with its figures."""
    for name, quality in qualities.items():
        column_cells = zip(COLUMNS, format_cells(quality), strict=True)
        text = ", ".join(f"{column} {cell}" for column, cell in column_cells if cell != "-")
        yield f"{name} ({quality.kind}): {text}"


def format_expected_losses(losses: "Mapping[str, ExpectedLoss]") -> Iterator[str]:
    """Yield one line for each output: expected loss on unseen images, and a limit for 99 %.

    The correlation shows what a small loss does not: whether the outputs differ between images.
    """
    for name, loss in losses.items():
        loss_kind = "1 - cosine" if loss.kind == "classes" else "square of the error"
        correlation = loss.quality.correlation if loss.quality else None
        suffix = "" if correlation is None else f"; correlation with fp32 {correlation:.4f}"
        yield (
            f"{name}, expected on unseen images like the calibration's, from {loss.images}"
            " held-out images:"
            f" {loss_kind} {loss.loss:.1e} (95 % confidence interval {loss.low:.1e} to"
            f" {loss.high:.1e}); with 95 % confidence, at most 1 in 100 images exceeds"
            f" {loss.worst:.1e}{suffix}"
        )


def format_bounds(bounds: "FloorBounds") -> Iterator[str]:
    """Yield one line for each output: its bounds for unseen images, which the floor checks."""
    for name, bound in bounds.items():
        parts = (
            ("mean cosine at least", _format_number(bound.cosine, ".6f")),
            ("correlation at least", _format_number(bound.correlation, ".4f")),
            ("error at most", _format_number(bound.error, ".3g")),
        )
        text = ", ".join(f"{label} {figure}" for label, figure in parts if figure != "-")
        if text:
            kind = f"95 % bounds, estimated from {bound.images} images"
            yield f"{name} on unseen images like the calibration's ({kind}): {text}"


def describe_images(qualities: "Qualities", image_origin: str) -> str:
    """Return a description of the compared images."""
    quality = next(iter(qualities.values()))
    spread = quality.spread_images
    suffix = f"; their spread over {spread}" if spread > quality.images else ""
    return f"{quality.images} images {image_origin}{suffix}"


def filter_changed(qualities: "Qualities") -> "Qualities":
    """Return the outputs with decisions that differ between int8 and fp32."""
    return {name: quality for name, quality in qualities.items() if quality.ties is not None}


def format_margins(qualities: "Qualities") -> Iterator[str]:
    """Yield the margins of decisions, and how many changed decisions had a small margin."""
    for name, quality in qualities.items():
        if quality.margin is None or quality.moved is None:
            continue
        text = (
            f"`{name}`: half of the fp32 model's decisions are less than {quality.margin:.3g} from "
            f"a tie; the int8 model changes this distance by {quality.moved:.3g} (RMS)"
        )
        if quality.ties is not None:
            text += (
                f"; {quality.ties:.0%} of the changed decisions were at most twice this change "
                "from a tie"
            )
        yield text


def format_unknown(qualities: "Qualities") -> Iterator[str]:
    """Yield what the images cannot show about outputs."""
    for name, quality in qualities.items():
        if quality.correlation is None:
            images = (
                "one image" if quality.spread_images == 1 else "images with the same fp32 output"
            )
            yield f"{images} cannot show whether `{name}` of the int8 model distinguishes images"


def is_cosine_idle(qualities: "Qualities", cosine: float | None) -> bool:
    """Whether a minimum cosine is set but no output has a cosine."""
    return cosine is not None and cosine > 0 and all(o.cosine is None for o in qualities.values())


def _format_number(number: float | None, form: str) -> str:
    return "-" if number is None else format(number, form)
