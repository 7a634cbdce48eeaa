"""`tcc slide view`: a slide with its heat map as a page that works without a server."""

from pathlib import Path
from typing import Annotated

import typer

from tcc.compiler.cli.common_options import Json, Quiet, Verbose
from tcc.compiler.cli.slide_mask import SlideArgument
from tcc.compiler.support import atomic_files
from tcc.compiler.support.console import Report

ResultArgument = Annotated[
    Path, typer.Argument(metavar="RESULT", help="The folder that `tcc slide run` wrote of it.")
]
FinestPixel = Annotated[
    float | None,
    typer.Option(
        "--at",
        metavar="UM",
        min=0.01,
        max=1000.0,
        show_default=False,
        help="Micrometres of the finest pixel shown, rounded down to a power of two of the "
        "slide's; without it, the patches' own.",
    ),
]
SkipDamaged = Annotated[bool, typer.Option("--skip-damaged", help="Show what is damaged white.")]
ViewOut = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="The folder of the page.")
]


def view(
    result: ResultArgument,
    slide: SlideArgument,
    at: FinestPixel = None,
    skip_damaged: SkipDamaged = False,
    out: ViewOut = Path("viewer"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a page of a slide and its heat map, to be opened in a browser.

    Open DIR/index.html: it needs no server and no network. Beside it lies overlay.tif, a pyramidal
    image of both, for slide viewers.
    """
    from tcc.compiler.slides import slide_file, slide_viewer, stored_result

    report = Report(json, quiet, verbose)
    atomic_files.check_folder(out, slide_viewer.ours)
    found = stored_result.read(result)
    slide_viewer.LIBRARY.files()
    with (
        report.stages() as stages,
        slide_file.opened(slide, found.mpp, skips=skip_damaged) as file,
    ):
        made = slide_viewer.view(file, found, at)
        atomic_files.write_grown(
            out, lambda folder: slide_viewer.write(folder, made, stages), slide_viewer.ours
        )
        stages.end()
    columns, rows = made.pyramid.count(made.pyramid.depth)
    pixel = made.pyramid.side * found.mpp
    report.text(f"{out / 'index.html'}: open it in a browser; its pixels are {pixel:g} um wide")
    report.document({"page": str(out / "index.html"), "micrometres_per_pixel": pixel,
                     "tiles": columns * rows})  # fmt: skip
