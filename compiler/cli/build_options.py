"""The options that `tcc build` alone has."""

from pathlib import Path
from typing import Annotated

import typer

Replay = Annotated[
    bool,
    typer.Option(help="Run what was built on a golden image first, where it can run here."),
]
Agree = Annotated[
    int,
    typer.Option(
        "--agree",
        metavar="N",
        min=0,
        help="Compare the targets over N images of --data too, from their pixels on.",
    ),
]
Probes = Annotated[
    bool,
    typer.Option(
        "--probes",
        help="Put the integer program into each bundle: `tcc verify` then compares each layer.",
    ),
]
ReportPage = Annotated[
    bool,
    typer.Option(
        "--report",
        help="Put a page into each bundle, report.html: agreement, sizes, losses by layer, costs.",
    ),
]
IncludeImages = Annotated[
    bool,
    typer.Option(
        "--include-images",
        help="Put the images that a maker's tool calibrates with into its package, not beside it.",
    ),
]
UseTool = Annotated[
    bool,
    typer.Option("--tool/--no-tool", help="Have a maker's tool compile a package, if it is here."),
]
RequireSignature = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        metavar="FILE",
        show_default=False,
        help="Compile this public Ed25519 key, in PEM, into the program for a device: it starts "
        "only beside a signature of itself (see `tcc sign`).",
    ),
]
Cached = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache",
        help="Take what the same inputs gave before out of the cache (see `tcc cache`).",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        show_default=False,
        help="Folder for the bundles; `build` by default.",
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="Integers as a file says that `tcc calibrate` wrote; without it, calibrate here.",
    ),
]
MinCosine = Annotated[
    float | None,
    typer.Option(
        metavar="C",
        min=0.0,
        max=1.0,
        show_default=False,
        help="Least mean cosine of integer and float outputs; the spec's, or 0.98 for classes.",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0.0,
        max=1.0,
        show_default=False,
        help="Largest share of images whose class or decision may change; the spec's, or any.",
    ),
]
MinCorrelation = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        min=0.0,
        max=1.0,
        show_default=False,
        help="Least correlation of each output with the floats' over images; the spec's, or 0.5.",
    ),
]
MaxError = Annotated[
    float | None,
    typer.Option(
        metavar="E",
        min=0.0,
        show_default=False,
        help="Largest error of each output, relative to the floats' spread; the spec's, or 1 but"
        " for classes.",
    ),
]
Mixed = Annotated[
    bool, typer.Option("--mixed", help="Keep layers in float where the floor needs it.")
]
AllowFew = Annotated[
    bool,
    typer.Option(
        "--allow-few",
        help="Judge the accuracy floor by fewer than 16 different images; the manifest warns.",
    ),
]
