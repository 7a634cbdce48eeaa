"""`tcc sign`: a signature beside each bundle, which says who made it."""

from pathlib import Path
from typing import Annotated

import typer

from tcc.compiler.cli.common_options import Json, Quiet, Verbose
from tcc.compiler.cli.report import Report

SHOWN = 16
"""Digits of a fingerprint that are shown."""
MAX_RELEASE = 10**9
"""Largest number of a release."""

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


Release = Annotated[
    int,
    typer.Option(
        "--release",
        metavar="N",
        min=1,
        max=MAX_RELEASE,
        help="The release of the network: who has used a later one by your key refuses this one.",
    ),
]


def sign(
    bundles: BundlesArgument,
    key: PrivateKey,
    release: Release = 1,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Sign bundles with a key of yours, so that others know who made them.

    The signature, `model.sig`, is in the format of the OpenSSF's model signing. Whoever uses the
    bundle, you too, trusts your public key once: `tcc trust add PUBLIC.pem --for NETWORK`.
    """
    from tcc.compiler.bundle import signature
    from tcc.compiler.cli import devices

    report = Report(json, quiet, verbose)
    # All are whole before any is signed. What another signature says of them does not matter.
    found = [devices.load(folder, None)[0] for folder in bundles]
    signed = [signature.sign(bundle, key, release) for bundle in found]
    for path, _ in signed:
        report.text(str(path))
    networks = " ".join(dict.fromkeys(f"--for {each.manifest.model.name}" for each in found))
    fingerprint = signed[0][1].fingerprint
    report.note(
        f"signed by key {fingerprint[:SHOWN]}, release {release}; to use it here or elsewhere: "
        f"`tcc trust add PUBLIC.pem {networks}`, with the public part of your key"
    )
    report.document(
        {
            "signatures": [str(path) for path, _ in signed],
            "fingerprint": fingerprint,
            "release": release,
        }
    )
