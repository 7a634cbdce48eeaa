"""`tcc trust`: trust and revoke signing keys, and require signatures."""

import re
from dataclasses import asdict, replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.cli.sign import FINGERPRINT_DIGITS, MAX_RELEASE
from tcc.compiler.support.diagnostics import fail, make_command_span, make_file_span

if TYPE_CHECKING:
    from tcc.compiler.support.trust_list import TrustedKey, TrustList


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


PublicKeyFile = Annotated[
    Path, typer.Argument(metavar="KEY", help="A public key in PEM.", show_default=False)
]
KeyOrFingerprint = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        show_default=False,
        help="A public key in PEM, or the first digits of its fingerprint, at least "
        f"{FINGERPRINT_DIGITS}.",
    ),
]
Networks = Annotated[
    list[str] | None,
    typer.Option(
        "--for",
        metavar="NETWORK",
        show_default=False,
        help="Name of a network that the key may sign. Can be repeated. Default: all networks.",
    ),
]
Expires = Annotated[
    str | None,
    typer.Option(
        "--expires",
        metavar="DATE",
        show_default=False,
        help="Last day in UTC on which the key is trusted, such as 2027-12-31.",
    ),
]
MinRelease = Annotated[
    int,
    typer.Option(
        "--min-release",
        metavar="N",
        min=0,
        max=MAX_RELEASE,
        help="Smallest release number of these networks that is accepted.",
    ),
]
SwitchArgument = Annotated[
    Switch, typer.Argument(metavar="on|off", help="on: refuse unsigned bundles; off: accept them.")
]
FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="Folder with a `tcc.toml`.", show_default=False),
]


def add(
    key: PublicKeyFile,
    networks: Networks = None,
    expires: Expires = None,
    min_release: MinRelease = 0,
    *,
    report: ReportOptions,
) -> None:
    """Trust a public key: bundles signed with it run and pass `verify`.

    Get the key from a source that you trust, not from the source of the bundle. Adding a key again
    replaces its earlier settings.
    """
    from tcc.compiler.bundle import signing_key
    from tcc.compiler.support import trust_list
    from tcc.compiler.support.trust_list import TrustedKey

    if expires is not None:
        _check_date(expires)
    public = signing_key.read_public(key)
    trusted = trust_list.read_trust_list()
    if public.fingerprint in trusted.revoked:
        message = "this key is revoked"
        help = "get a new key from its owner; `tcc trust list` shows the revoked keys"
        at = make_file_span(str(key))
        raise fail(
            "E1357", message, at, label=f"key {public.fingerprint[:FINGERPRINT_DIGITS]}", help=help
        )
    network_names = tuple(dict.fromkeys(networks or ()))
    trusted_key = TrustedKey(public.fingerprint, public.pem, network_names, expires, min_release)
    path = trust_list.write_trust_list(trusted.add_key(trusted_key))
    report.print_text(f"trusted: {_format_key(trusted_key)}")
    if network_names and not trusted.require:
        report.print_note(
            f"bundles of {', '.join(network_names)} without a signature are now refused, "
            "unless this machine builds them from now on"
        )
    elif not trusted.require:
        report.print_note(
            "bundles without a signature still run: `tcc trust require on` refuses them"
        )
    report.print_document({"file": str(path), "key": asdict(trusted_key)})


def list_(*, report: ReportOptions) -> None:
    """List trusted and revoked keys, and whether signatures are required."""
    from tcc.compiler.support import trust_list

    trusted, copied = trust_list.read_trust_list(), trust_list.list_key_files()
    for key in trusted.keys:
        report.print_text(_format_key(key))
    for path in copied:
        report.print_text(f"{path}  all networks")
    for fingerprint in trusted.revoked:
        report.print_text(f"{fingerprint[:FINGERPRINT_DIGITS]}  revoked")
    for folder in trusted.folders:
        report.print_text(f"project files in {folder}")
    report.print_text(_describe_unsigned(trusted))
    report.print_document(asdict(trusted) | {"files": [str(path) for path in copied]})


def revoke(key: KeyOrFingerprint, *, report: ReportOptions) -> None:
    """Revoke a key: bundles signed with it are always refused from now on."""
    from tcc.compiler.support import trust_list

    trusted = trust_list.read_trust_list()
    fingerprint = _find_fingerprint(key, trusted)
    path = trust_list.write_trust_list(trusted.revoke_key(fingerprint))
    report.print_text(f"revoked: {fingerprint[:FINGERPRINT_DIGITS]}")
    report.print_document({"file": str(path), "revoked": fingerprint})


def require(switch: SwitchArgument, *, report: ReportOptions) -> None:
    """Refuse bundles without a signature, or accept them again.

    This includes bundles that you build yourself: sign them with `tcc sign`.
    """
    from tcc.compiler.support import trust_list

    trusted = replace(trust_list.read_trust_list(), require=switch is Switch.ON)
    path = trust_list.write_trust_list(trusted)
    report.print_text(_describe_unsigned(trusted))
    report.print_document({"file": str(path), "require": trusted.require})


def _describe_unsigned(trusted: "TrustList") -> str:
    """Return how bundles without a signature are treated."""
    network_names = dict.fromkeys(name for key in trusted.keys for name in key.networks)
    if trusted.require:
        return "bundles without a signature are refused"
    return (
        "bundles without a signature are accepted"
        f"{', except those of ' * bool(network_names)}{', '.join(network_names)}"
    )


def allow_folder(folder: FolderArgument, *, report: ReportOptions) -> None:
    """Use the project file in a folder, although other users can change it."""
    from tcc.compiler.support import trust_list

    trusted, folder_path = trust_list.read_trust_list(), str(folder.resolve())
    path = trust_list.write_trust_list(
        replace(trusted, folders=tuple(dict.fromkeys((*trusted.folders, folder_path))))
    )
    report.print_text(f"project files in {folder_path} are used from now on")
    report.print_document({"file": str(path), "folder": folder_path})


def _format_key(key: "TrustedKey") -> str:
    """Return a one-line description of a key."""
    networks = ", ".join(key.networks) or "all networks"
    until = f", until {key.expires}" if key.expires else ""
    expired = " (expired)" if key.is_expired else ""
    release_note = f", release {key.min_release} and later" if key.min_release else ""
    return f"{key.fingerprint[:FINGERPRINT_DIGITS]}  {networks}{until}{expired}{release_note}"


def _find_fingerprint(key: str, trusted: "TrustList") -> str:
    """Return the fingerprint of a key that is given as a file or by its first digits.

    Raises:
        UserError: No trusted key has these digits, or several have (E1364).
    """
    from tcc.compiler.bundle import signing_key

    if not re.fullmatch(f"[0-9a-f]{{{FINGERPRINT_DIGITS},64}}", key):
        return signing_key.read_public(Path(key)).fingerprint
    if len(key) == 64:
        return key
    matches = [
        trusted_key.fingerprint
        for trusted_key in trusted.keys
        if trusted_key.fingerprint.startswith(key)
    ]
    if len(matches) != 1:
        message = (
            f"{len(matches) or 'no'} trusted key{'s' * (len(matches) != 1)} "
            f"begin{'s' * (len(matches) == 1)} with these digits"
        )
        help = "give all 64 digits, or the file of the key; `tcc trust list` lists the trusted keys"
        raise fail("E1364", message, make_command_span(f"revoke {key}"), help=help)
    return matches[0]


def _check_date(text: str) -> None:
    try:
        # Only this form is accepted, because dates are compared as text.
        if date.fromisoformat(text).isoformat() == text:
            return
    except ValueError:
        pass
    at, help = make_command_span(f"--expires {text}"), "write a date such as --expires 2027-12-31"
    raise fail("E0601", "a date must have the form YYYY-MM-DD", at, help=help)
