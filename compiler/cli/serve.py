"""`tcc serve`: serve the page of a web bundle, or of a slide and its heat map, on this machine."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support import option_requirements
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import fail, make_command_span, make_file_span
from tcc.compiler.support.option_requirements import SLIDE_PAGE

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.slides.slide_viewer import SlideView
    from tcc.compiler.support.static_server import StaticServer

PAGE = "index.html"
PageArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        help="A bundle for `web`, or a result of `tcc slide run`.",
        show_default=False,
    ),
]
ViewedSlide = Annotated[
    Path | None,
    typer.Argument(
        metavar="[SLIDE]", help="The file of the slide, for a result of `tcc slide run`.",
        show_default=False,
    ),
]  # fmt: skip
Host = Annotated[
    str,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Address to listen on. An address other than 127.0.0.1 can let other machines in.",
    ),
]
Port = Annotated[
    int,
    typer.Option(
        "--port", metavar="N", min=0, max=65535, help="Port to listen on; 0 picks a free one."
    ),
]
FinestPixel = Annotated[
    float | None,
    typer.Option(
        "--at",
        metavar="UM",
        min=0.01,
        max=1000.0,
        show_default=False,
        help="Micrometres per pixel of the finest level of a slide's page, rounded down to a "
        "power of two of the slide's pixels. Default: that of the patches.",
    ),
]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Show damaged parts of a slide in white.")
]
PageOut = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        show_default=False,
        help="Write a slide's page into this folder instead of serving it. It works without "
        "a server.",
    ),
]


def serve(
    folder: PageArgument,
    slide: ViewedSlide = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    output: PageOut = None,
    at: FinestPixel = None,
    skip_damaged: SkipDamaged = False,
    *,
    report: ReportOptions,
) -> None:
    """Serve the page of a bundle, or of a slide with its heat map.

    The server runs until it is interrupted. It serves only the page's own files, and only to this
    machine unless `--host` allows more. With --output a slide's page is written instead:
    DIR/index.html for any browser, and overlay.tif, a pyramidal image of slide and heat map for
    slide viewers.
    """
    option_requirements.report_facts({SLIDE_PAGE: slide is not None})
    if slide is None:
        _run_bundle_server(report, folder, host, port)
        return
    from tcc.compiler.slides import slide_viewer
    from tcc.compiler.support import atomic_files

    if output:
        atomic_files.check_folder(output, slide_viewer.check_overwrite)
    with _open_view(report, folder, slide, at, skips=skip_damaged) as (view, stages):
        if output:
            atomic_files.fill_folder(
                output,
                lambda folder_path: slide_viewer.write_page(folder_path, view, stages),
                slide_viewer.check_overwrite,
            )
            stages.finish_stage()
            _report_page(report, view, output)
            return
        with atomic_files.create_scratch_folder() as scratch:
            page = scratch / "page"
            page.mkdir()
            slide_viewer.write_page(page, view, stages)
            stages.finish_stage()
            paths = (path for path in page.rglob("*") if path.is_file())
            files = {path.relative_to(page).as_posix(): path for path in paths}
            with create_file_server(files, PAGE, host, port, inline_styles=True) as listening:
                _run_server(report, listening, {"result": str(folder), "slide": str(slide)})


@contextmanager
def _open_view(
    report: Report, folder: Path, slide: Path, at: float | None, *, skips: bool
) -> "Iterator[tuple[SlideView, Any]]":
    """Yield the view of a slide and its result while the slide is open."""
    from tcc.compiler.slides import saved_result, slide_file, slide_viewer

    slide_result = saved_result.read_result(folder)
    slide_viewer.LIBRARY.load_files()
    with (
        report.track_stages() as stages,
        slide_file.open_slide(slide, slide_result.mpp, skips_damaged=skips) as file,
    ):
        yield slide_viewer.build_view(file, slide_result, at), stages


def _report_page(report: Report, view: "SlideView", folder: Path) -> None:
    pyramid = view.pyramid
    columns, rows = pyramid.count_tiles(pyramid.depth)
    pixel, page = pyramid.side * view.slide_result.mpp, folder / PAGE
    report.print_text(f"{page}: open it in a browser; its finest pixels are {pixel:g} um wide")
    document = {"page": str(page), "micrometres_per_pixel": pixel, "tiles": columns * rows}
    report.print_document(document)


def _run_bundle_server(report: Report, folder: Path, host: str, port: int) -> None:
    from tcc.compiler.slides.saved_result import SUMMARY
    from tcc.compiler.targets import devices

    if (folder / SUMMARY).is_file() and not (folder / "manifest.json").exists():
        help = f"add the slide's file: `tcc serve {folder} SLIDE`"
        message = "this folder is the result of a slide, but the slide is not named"
        raise fail("E0601", message, make_file_span(str(folder)), help=help)
    bundle, _ = devices.load_bundle(folder, devices.create_signature_policy())
    with create_server(bundle, host, port) as listening:
        _run_server(report, listening, {"bundle": str(folder)})


def _run_server(report: Report, listening: "StaticServer", document: Mapping[str, str]) -> None:
    from tcc.compiler.support.static_server import LOOPBACK

    if listening.host not in LOOPBACK:
        report.warn_text(
            "every machine that can reach this one can open the page; browsers block "
            "the camera over http there"
        )
    report.print_text(listening.url)
    report.print_document({"url": listening.url, **document})
    sys.stdout.flush()  # a reader of a pipe waits for this line
    report.print_note("press Ctrl-C to stop the server")
    listening.serve_forever()


def create_server(bundle: "Bundle", host: str, port: int) -> "StaticServer":
    """Return a server for the page of a bundle.

    Raises:
        UserError: The bundle has no page (E0659), or the address cannot be used (E0661).
    """
    from tcc.compiler.bundle.bundle_folder import MODEL
    from tcc.compiler.bundle.manifest import NAME

    paths = [NAME, *(file.path for file in bundle.manifest.files)]
    page = f"{MODEL}/{PAGE}"
    if page not in paths:
        message = f"a bundle for {bundle.manifest.target} has no page to serve"
        location = make_file_span(str(bundle.folder))
        raise fail("E0659", message, location, help="build one with `tcc build --target web`")
    return create_file_server({path: bundle.folder / path for path in paths}, page, host, port)


def create_file_server(
    files: Mapping[str, Path], page: str, host: str, port: int, *, inline_styles: bool = False
) -> "StaticServer":
    """Return a server for files that redirects all other requests to `page`.

    Raises:
        UserError: The address cannot be used (E0661).
    """
    from tcc.compiler.support.static_server import StaticServer

    try:
        return StaticServer(host, port, files, page, inline_styles=inline_styles)
    except (OSError, TypeError, ValueError) as error:  # an invalid host name raises one of these
        reason = getattr(error, "strerror", None) or "it is not an address"
        message = f"cannot listen on {host[:80]}, port {port}: {reason}"
        help = "choose another with --port, or --port 0 for a free one"
        raise fail("E0661", message, make_command_span("--port"), help=help) from error
