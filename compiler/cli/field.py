"""`tcc field`: make the tables of a bundle's guard from the images of a site."""

from pathlib import Path
from typing import Annotated

import typer

from tcc.compiler.cli.options import BundleArgument, ProgramOptions, ReportOptions
from tcc.compiler.targets import trusted_bundle

SiteImages = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="Images of the site, of at least 50 cases.", show_default=False
    ),
]


def refit_guard(
    bundle: BundleArgument, images: SiteImages, *, program: ProgramOptions, report: ReportOptions
) -> None:
    """Make the tables of a bundle's guard from a site's own images.

    The guard then compares with the images of this site. The network and its forms do not change.
    The bundle is written again, so sign it again.
    """
    from tcc.compiler.bundle import guard_readings
    from tcc.compiler.data.dataset import read_dataset
    from tcc.compiler.driver import guard_stream

    loaded_bundle, device = trusted_bundle.load(bundle, trust=program.trust, isa=program.isa)
    dataset = read_dataset(images)
    report.warn_grouped(dataset.warnings)
    new_bundle = guard_stream.refit(loaded_bundle, device, dataset)
    guard = guard_readings.find_guard(new_bundle)
    assert guard
    report.print_note(f"the guard has tables of {images}")
    report.print_note(guard_stream.describe_promise(guard))
    origin = guard.calibrated
    report.print_document({"bundle": str(bundle), "images": origin.images, "cases": origin.cases})
