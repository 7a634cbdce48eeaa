"""`tcc sign`: a signature beside each bundle, which says who made it."""

from pathlib import Path
from typing import Annotated

import typer

from tcc.compiler.cli.common_options import Json, Quiet, Verbose
from tcc.compiler.cli.report import Report

BundlesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="BUNDLE", help="Folders that `tcc build` wrote.", show_default=False),
]
PrivateKey = Annotated[
    Path,
    typer.Option(
        "--key",
        metavar="FILE",
        show_default=False,
        help="Your private key: an elliptic curve's, in PEM, without a password.",
    ),
]


def sign(
    bundles: BundlesArgument,
    key: PrivateKey,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Sign bundles with a key of yours, so that others know who made them.

    The signature, `model.sig`, is in the format of the OpenSSF's model signing. Others check it by
    `tcc verify BUNDLE --key PUBLIC.pem`, or trust your key once by a copy in ~/.config/tcc/keys.
    """
    from tcc.compiler.bundle import signature
    from tcc.compiler.cli import devices

    report = Report(json, quiet, verbose)
    # All are whole before any is signed.
    found = [devices.load(folder)[0].folder for folder in bundles]
    made = [signature.sign(folder, key) for folder in found]
    for path in made:
        report.text(str(path))
    report.document({"signatures": [str(path) for path in made]})
