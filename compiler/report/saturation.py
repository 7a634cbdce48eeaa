"""`tcc eval --saturation`: how many values of an int8 model saturate, from a bundle or a spec."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.driver.evaluation_report import SaturationReport
    from tcc.compiler.driver.saturation import LayerSaturation, Saturation

LISTED = 20
"""Layers that the table lists."""


def print_counts(report: Report, counts: "Saturation") -> None:
    """Print the layers with the most saturated values, and which clip more than at calibration."""
    deviating = counts.deviating
    if not report.quiet:
        report.text(f"\nsaturated values, over {_count(counts.images, 'image')}")
        report.table(
            ("layer", "share", "worst image", "at calibration", "images above", ""),
            [_build_row(layer, layer in deviating) for layer in _choose_layers(counts)],
        )
    if deviating:
        report.notice(_describe_deviation(counts, deviating))
    elif not counts.can_deviate:
        report.notice(_explain_no_comparison(counts))
    elif not report.quiet:
        report.text("no layer clips more than chance explains beside the calibration's images")
    if not report.quiet:
        report.text(
            "These are counts. Images of another kind may clip no more, so that counts do not show"
            " how accurate the network is on these images."
        )


def _describe_deviation(counts: "Saturation", deviating: "Sequence[LayerSaturation]") -> str:
    first = deviating[0]
    assert first.usual is not None
    return (
        f"more values clip than on the calibration's images, in {len(deviating)} of"
        f" {_count(len(counts.compared), 'layer')}: in {first.above:,} of"
        f" {_count(counts.images, 'image')} `{first.name}` has a larger share of saturated values"
        f" than in each of the calibration's {_count(first.usual.images, 'image')}. To find out"
        " what this costs, evaluate labelled images like these; to widen the ranges, calibrate"
        " again with such images among the others"
    )


def _explain_no_comparison(counts: "Saturation") -> str:
    if not counts.compared:
        return (
            "these counts are not compared with the calibration's: its file does not say them image"
            " by image. Calibrate again to record them"
        )
    reference = max(layer.usual.images for layer in counts.compared if layer.usual)
    return (
        f"these counts are not compared with the calibration's: {_count(counts.images, 'image')}"
        f" beside {reference:,} of the calibration are too few for {len(counts.compared):,} layers."
        " Give more images"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def print_counted(report: Report, found: "SaturationReport") -> dict[str, Any]:
    """Print the counts, and return the document of them."""
    refusal = found.refusal
    label = f" ({refusal.label})" if refusal.label else ""
    report.notice(f"accuracy is not measured on {found.path}: {refusal.message}{label}")
    print_counts(report, found.counts)
    images = {"path": str(found.path), "digest": found.data.digest, "images": len(found.data)}
    counts = {"saturation": document(found.counts)}
    return counts | {**found.about, "data": images, "accuracy": None}


def document(counts: "Saturation") -> dict[str, Any]:
    """Return what `--json` prints of it."""
    compared = counts.compared
    layers = [
        {
            "layer": layer.name,
            "share": layer.mean,
            "standard_error": layer.error,
            "worst_image": max(layer.shares),
            "at_calibration": layer.usual.mean if layer.usual else None,
            "images_above": layer.above,
            "clips_more": layer.clips_more(len(compared)) if counts.can_deviate else None,
        }
        for layer in counts.layers
    ]
    reference = max((layer.usual.images for layer in compared if layer.usual), default=0)
    return {
        "images": counts.images,
        "calibration_images": reference,
        "compared": counts.can_deviate,
        "layers": layers,
    }


def _choose_layers(counts: "Saturation") -> "list[LayerSaturation]":
    layers = [layer for layer in counts.layers if layer.mean]
    deviating = {layer.name for layer in counts.deviating}
    # Those that deviate first, whatever their share.
    return sorted(layers, key=lambda layer: (layer.name not in deviating, -layer.mean))[:LISTED]


def _build_row(layer: "LayerSaturation", deviates: bool) -> tuple[str, ...]:
    known = "-" if layer.usual is None else f"{layer.usual.mean:.4%}"
    above = "-" if layer.above is None else f"{layer.above:,} of {len(layer.shares):,}"
    mark = "clips more" if deviates else ""
    return (layer.name, f"{layer.mean:.4%}", f"{max(layer.shares):.4%}", known, above, mark)
