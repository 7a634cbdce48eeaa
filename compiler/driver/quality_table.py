"""How integers compare with floats, output by output, as a person reads it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcc.compiler.reference.accuracy_floor import FloorBounds, Qualities, Quality
    from tcc.compiler.reference.expected_loss import ExpectedLoss

COLUMNS = ("mean cosine", "least", "correlation", "error", "same", "probabilities off by")
"""What is said of an output; `error` is relative to the floats' spread, `same` the share of
decisions."""


def format_cells(quality: "Quality") -> tuple[str, ...]:
    """Return what `COLUMNS` say of one output; `-` stands for what it does not have."""
    return (
        _format_number(quality.cosine, ".6f"),
        _format_number(quality.least_cosine, ".6f"),
        _format_number(quality.correlation, ".4f"),
        _format_number(quality.error, ".3g"),
        _format_number(quality.agreement, ".1%"),
        _format_number(quality.difference, ".1e"),
    )


def format_lines(qualities: "Qualities") -> Iterator[str]:
    """Yield a line an output, of what it has."""
    for name, quality in qualities.items():
        column_cells = zip(COLUMNS, format_cells(quality), strict=True)
        text = ", ".join(f"{column} {cell}" for column, cell in column_cells if cell != "-")
        yield f"{name} ({quality.kind}): {text}"


def format_expected_losses(losses: "Mapping[str, ExpectedLoss]") -> Iterator[str]:
    """Yield a line an output: what unseen images lose, and what at most one in a hundred exceeds.

    The correlation says what a small loss does not: whether the images are told apart.
    """
    for name, loss in losses.items():
        loss_kind = "1 - cosine" if loss.kind == "classes" else "square of the error"
        correlation = loss.quality.correlation if loss.quality else None
        suffix = "" if correlation is None else f"; correlation with the floats {correlation:.4f}"
        yield (
            f"expected of {name} on unseen images of the calibration's kind, by {loss.images} held"
            " out from it:"
            f" {loss_kind} {loss.loss:.1e} ({loss.low:.1e} to {loss.high:.1e} at 95 %), above"
            f" {loss.worst:.1e} for at most one in a hundred, at 95 % as well{suffix}"
        )


def format_bounds(bounds: "FloorBounds") -> Iterator[str]:
    """Yield a line an output: what unseen images keep, which its floor is judged by."""
    for name, bound in bounds.items():
        parts = (
            ("mean cosine at least", _format_number(bound.cosine, ".6f")),
            ("correlation at least", _format_number(bound.correlation, ".4f")),
            ("error at most", _format_number(bound.error, ".3g")),
        )
        text = ", ".join(f"{label} {figure}" for label, figure in parts if figure != "-")
        if text:
            kind = f"on unseen images of the calibration's kind, at 95 % by {bound.images}"
            yield f"{name} {kind}: {text}"


def describe_images(qualities: "Qualities", image_origin: str) -> str:
    """Return over which images outputs were compared."""
    quality = next(iter(qualities.values()))
    spread = quality.spread_images
    suffix = f"; their spread over {spread}" if spread > quality.images else ""
    return f"{quality.images} images {image_origin}{suffix}"


def filter_changed(qualities: "Qualities") -> "Qualities":
    """Return the outputs some of whose decisions integers change."""
    return {name: quality for name, quality in qualities.items() if quality.ties is not None}


def format_margins(qualities: "Qualities") -> Iterator[str]:
    """Yield how far decisions are from ties, and whether those that changed were near them."""
    for name, quality in qualities.items():
        if quality.margin is None or quality.moved is None:
            continue
        text = (
            f"`{name}`: half of the float margins are below {quality.margin:.3g}, "
            "integers move them by"
            f" {quality.moved:.3g}"
        )
        if quality.ties is not None:
            text += f"; {quality.ties:.0%} of what changed was as near to a tie as that"
        yield text


def format_unknown(qualities: "Qualities") -> Iterator[str]:
    """Yield what the images do not show of outputs."""
    for name, quality in qualities.items():
        if quality.correlation is None:
            images = (
                "one image" if quality.spread_images == 1 else "images that are alike in floats"
            )
            yield f"{images}: nothing shows whether the integers of `{name}` tell images apart"


def is_cosine_idle(qualities: "Qualities", cosine: float | None) -> bool:
    """Whether a least cosine is asked for that no output has."""
    return cosine is not None and cosine > 0 and all(o.cosine is None for o in qualities.values())


def _format_number(number: float | None, form: str) -> str:
    return "-" if number is None else format(number, form)
