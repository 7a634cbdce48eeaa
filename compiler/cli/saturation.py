"""`tcc eval --saturation`: how often the values of an integer program are the last of their levels.

What leads there from a bundle or a spec, and the table.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.cli.common_options import ChosenSpec, typed
from tcc.compiler.cli.report import Report, Stages
from tcc.compiler.support.diagnostics import fail

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.driver.saturation import LayerSaturation, Saturation

LISTED = 20
"""Layers that the table lists."""


def of_spec(
    stages: Stages,
    chosen: ChosenSpec,
    weights: "WeightSource",
    calibration: Path | None,
    data: "DataSet",
) -> "Saturation":
    """Return what the integer program of a spec's calibration gives in the reference executor.

    Args:
        stages: Told how far the work is.
        chosen: The spec.
        weights: Its weights.
        calibration: The file of its calibration; without one, that of a trained network.
        data: Images that it takes.

    Raises:
        UserError: There is no calibration (E1267), or it is another network's.
    """
    from tcc.compiler.driver import int8_program, pipeline, saturation
    from tcc.compiler.quant import calibration_file
    from tcc.compiler.quant.program.quantize import quantize

    own = chosen.trained.calibration if chosen.trained and not chosen.changed else None
    path = calibration or own
    if path is None:
        message = "a spec has no integers to count"
        help = "give its calibration with --calibration, or evaluate a bundle of it"
        raise fail("E1267", message, typed("--saturation"), help=help)
    source = int8_program.from_file(path, chosen.spec, weights, None)
    ready = pipeline.ready(chosen.spec, weights)
    document = source.document
    # The program that a build would make, without what a target adds.
    program = quantize(ready, calibration_file.calibration(document, ready, source.name))
    return saturation.of_program(program, document, data, stages)


def tell(report: Report, found: "Saturation") -> None:
    """Print the layers that saturate the most, and say whether that is usual."""
    if not report.quiet:
        report.text(f"\nlevels at their end, over {found.images:,} images")
        report.table(
            ("layer", "share", "worst image", "at calibration", ""),
            [_row(layer) for layer in _listed(found)],
        )
    if not found.compared:
        report.notice(
            "it is not known what is usual: calibrate again, since this calibration does not say it"
        )
        return
    if found.unusual:
        count = len(found.unusual)
        report.notice(
            f"{count} of {len(found.layers)} layers {'is' if count == 1 else 'are'} at the end of"
            " the levels far more often than on the calibration's images: it no longer fits these"
            " images"
        )
    elif not report.quiet:
        report.text("as on the calibration's images: it fits these images")


def document(found: "Saturation") -> dict[str, Any]:
    """Return what `--json` prints of it."""
    layers = [
        {
            "layer": one.name,
            "share": one.share,
            "standard_error": one.error,
            "worst_image": one.worst,
            "at_calibration": one.usual,
            "unusual": one.unusual,
        }
        for one in found.layers
    ]
    fits = not found.unusual if found.compared else None
    return {"images": found.images, "fits": fits, "layers": layers}


def _listed(found: "Saturation") -> "list[LayerSaturation]":
    some = (layer for layer in found.layers if layer.share)
    # Unusual ones first, whatever their share.
    return sorted(some, key=lambda one: (not one.unusual, -one.share))[:LISTED]


def _row(layer: "LayerSaturation") -> tuple[str, ...]:
    known = "-" if layer.usual is None else f"{layer.usual:.4%}"
    mark = "unusual" if layer.unusual else ""
    return (layer.name, f"{layer.share:.4%}", f"{layer.worst:.4%}", known, mark)
