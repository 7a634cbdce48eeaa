"""`tcc sign`: sign bundles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import fail, make_command_span

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.ir.device import Device

FINGERPRINT_DIGITS = 16
"""Number of digits of a fingerprint that are shown."""
MAX_RELEASE = 10**9
"""Largest release number."""

BundlesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="BUNDLE", help="Folders that `tcc build` wrote.", show_default=False),
]
PrivateKey = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        show_default=False,
        help="Your private elliptic curve key, in PEM, without a password.",
    ),
]
RunnerKey = Annotated[
    Path | None,
    typer.Option(
        "--runner-key",
        metavar="FILE",
        show_default=False,
        help="Private Ed25519 key for programs built with `tcc build --require-signature`: "
        "sign the program too.",
    ),
]


Release = Annotated[
    int,
    typer.Option(
        "--release",
        metavar="N",
        min=1,
        max=MAX_RELEASE,
        help="Release number of the network. A user who has used a later release with your "
        "key cannot use this one.",
    ),
]


def sign(
    bundles: BundlesArgument,
    key: PrivateKey = None,
    runner_key: RunnerKey = None,
    release: Release = 1,
    *,
    report: ReportOptions,
) -> None:
    """Sign bundles with your key, so that users know who made them.

    The signature, `model.sig`, has the format of the OpenSSF's model signing. Everyone who uses the
    bundle, including you, trusts your public key once: `tcc trust add PUBLIC.pem --for NETWORK`.
    `--runner-key` creates the signature that the C program checks when it starts.
    """
    if key is None and runner_key is None:
        help = "add `--key PRIVATE.pem`, or `--runner-key` for the program of a device"
        raise fail("E0601", "no key is given to sign with", make_command_span("sign"), help=help)
    signed = _sign_programs(report, bundles, runner_key) if runner_key else []
    document: dict[str, object] = {"fingerprint": None, "release": None}
    if key:
        paths, document = _sign_bundles(report, bundles, key, release, signed)
        signed += paths
    report.print_document({"signatures": list(map(str, signed)), **document})


def _load(folders: list[Path]) -> "list[tuple[Bundle, Device]]":
    """Return complete bundles, whatever their other signatures are."""
    from tcc.compiler.targets import devices

    return [devices.load_bundle(folder, None) for folder in folders]


def _sign_programs(report: Report, folders: list[Path], key: Path) -> list[Path]:
    """Sign the programs of bundles, all or none."""
    from tcc.compiler.bundle import runner_key

    # Check all bundles before any is signed.
    signatures = [(bundle, *runner_key.make_signature(bundle, device, key)) for bundle, device in
            _load(folders)]  # fmt: skip
    paths = [runner_key.store_signature(*signature) for signature in signatures]
    for path in paths:
        report.print_text(str(path))
    report.print_note(
        "signed each program; it checks the signature when it starts, so copy both to "
        "the device. `eval --fit` changes the program: sign it again afterwards"
    )
    return paths


def _sign_bundles(
    report: Report, folders: list[Path], key: Path, release: int, programs: list[Path]
) -> tuple[list[Path], dict[str, object]]:
    """Sign all files of bundles; return the signatures, and what is reported about the key."""
    from tcc.compiler.bundle import runner_key, signed_files

    loaded = _load(folders)
    if not programs:
        for bundle, device in loaded:
            runner_key.require_signed(bundle, device)
    signed = [
        signed_files.sign_bundle(b.folder, b.manifest.model.name, key, release) for b, _ in loaded
    ]
    for path, _ in signed:
        report.print_text(str(path))
    names = dict.fromkeys(f"--for {bundle.manifest.model.name}" for bundle, _ in loaded)
    fingerprint = signed[0][1].fingerprint
    report.print_note(
        f"signed by key {fingerprint[:FINGERPRINT_DIGITS]}, release {release}; to use it "
        f"on this or another machine, run `tcc trust add PUBLIC.pem {' '.join(names)}` "
        "with the public part of your key"
    )
    return [path for path, _ in signed], {"fingerprint": fingerprint, "release": release}
