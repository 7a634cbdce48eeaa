"""How integers compare with floats, output by output, as a person reads it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcc.compiler.reference.accuracy_floor import FloorBounds, Qualities, Quality
    from tcc.compiler.reference.expected_loss import ExpectedLoss

COLUMNS = ("mean cosine", "least", "correlation", "error", "same", "probabilities off by")
"""What is said of an output; `error` is relative to the floats' spread, `same` the share of
decisions."""


def cells(found: "Quality") -> tuple[str, ...]:
    """Return what `COLUMNS` say of one output; `-` stands for what it does not have."""
    return (
        _said(found.cosine, ".6f"),
        _said(found.least_cosine, ".6f"),
        _said(found.correlation, ".4f"),
        _said(found.error, ".3g"),
        _said(found.agreement, ".1%"),
        _said(found.difference, ".1e"),
    )


def lines(found: "Qualities") -> Iterator[str]:
    """Yield a line an output, of what it has."""
    for name, one in found.items():
        said = zip(COLUMNS, cells(one), strict=True)
        shown = ", ".join(f"{column} {cell}" for column, cell in said if cell != "-")
        yield f"{name} ({one.kind}): {shown}"


def expected(found: "Mapping[str, ExpectedLoss]") -> Iterator[str]:
    """Yield a line an output: what unseen images lose, and what at most one in a hundred exceeds.

    The correlation says what a small loss does not: whether the images are told apart.
    """
    for name, one in found.items():
        what = "1 - cosine" if one.kind == "classes" else "square of the error"
        told = one.quality.correlation if one.quality else None
        more = "" if told is None else f"; correlation with the floats {told:.4f}"
        yield (
            f"expected of {name} on unseen images of the calibration's kind, by {one.images} held"
            " out from it:"
            f" {what} {one.loss:.1e} ({one.low:.1e} to {one.high:.1e} at 95 %), above"
            f" {one.worst:.1e} for at most one in a hundred, at 95 % as well{more}"
        )


def format_bounds(bounds: "FloorBounds") -> Iterator[str]:
    """Yield a line an output: what unseen images keep, which its floor is judged by."""
    for name, bound in bounds.items():
        parts = (
            ("mean cosine at least", _said(bound.cosine, ".6f")),
            ("correlation at least", _said(bound.correlation, ".4f")),
            ("error at most", _said(bound.error, ".3g")),
        )
        text = ", ".join(f"{label} {figure}" for label, figure in parts if figure != "-")
        if text:
            kind = f"on unseen images of the calibration's kind, at 95 % by {bound.images}"
            yield f"{name} {kind}: {text}"


def over(found: "Qualities", where: str) -> str:
    """Return over which images outputs were compared."""
    one = next(iter(found.values()))
    spread = one.spread_images
    more = f"; their spread over {spread}" if spread > one.images else ""
    return f"{one.images} images {where}{more}"


def changed(found: "Qualities") -> "Qualities":
    """Return the outputs some of whose decisions integers change."""
    return {name: one for name, one in found.items() if one.ties is not None}


def margins(found: "Qualities") -> Iterator[str]:
    """Yield how far decisions are from ties, and whether those that changed were near them."""
    for name, one in found.items():
        if one.margin is None or one.moved is None:
            continue
        said = (
            f"`{name}`: half of the float margins are below {one.margin:.3g}, integers move them by"
            f" {one.moved:.3g}"
        )
        if one.ties is not None:
            said += f"; {one.ties:.0%} of what changed was as near to a tie as that"
        yield said


def unknown(found: "Qualities") -> Iterator[str]:
    """Yield what the images do not show of outputs."""
    for name, one in found.items():
        if one.correlation is None:
            shown = "one image" if one.spread_images == 1 else "images that are alike in floats"
            yield f"{shown}: nothing shows whether the integers of `{name}` tell images apart"


def idle(found: "Qualities", cosine: float | None) -> bool:
    """Whether a least cosine is asked for that no output has."""
    return cosine is not None and cosine > 0 and all(o.cosine is None for o in found.values())


def _said(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
