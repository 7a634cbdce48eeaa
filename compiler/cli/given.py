"""The weights that a command works with: the named ones, the project's, or random ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.options import Chosen, typed
from tcc.compiler.cli.report import Report
from tcc.compiler.source import fail

if TYPE_CHECKING:
    from tcc.compiler.pipeline import Given

WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Weights as safetensors; without them, the project file's, or random ones.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", min=0, show_default=False, help="Take random weights of this seed."
    ),
]


def take(report: Report, chosen: Chosen, weights: Path | None, seed: int | None) -> "Given":
    """Return weights for a spec; random ones are announced on standard error.

    Raises:
        UserError: Both are asked for (E0601), or the file does not fit the spec.
    """
    from tcc.compiler import pipeline

    if weights and seed is not None:
        raise fail("E0601", "--weights and --seed exclude each other", typed(f"--seed {seed}"))
    own = chosen.project.weights if chosen.own and seed is None else None
    path = weights or own
    if path:
        report.detail(f"weights: {path}")
        return pipeline.read_weights(path, chosen.spec.graph, report.warn)
    given = pipeline.random_weights(chosen.spec.graph, seed or 0)
    report.notice(f"{given.origin.notice}; give trained ones with --weights")
    return given
