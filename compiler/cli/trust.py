"""`tcc trust`: whose signatures are taken, for which networks, and whether they are required."""

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
        help=(
            f"A public key in PEM, or the first {FINGERPRINT_DIGITS} or more digits of its "
            "fingerprint."
        ),
    ),
]
Networks = Annotated[
    list[str] | None,
    typer.Option(
        "--for",
        metavar="NETWORK",
        show_default=False,
        help="The name of a network whose bundles it may sign; may be repeated. Without it, all.",
    ),
]
Expires = Annotated[
    str | None,
    typer.Option(
        "--expires",
        metavar="DATE",
        show_default=False,
        help="The last day, in UTC, on which it is trusted: 2027-12-31.",
    ),
]
MinRelease = Annotated[
    int,
    typer.Option(
        "--min-release",
        metavar="N",
        min=0,
        max=MAX_RELEASE,
        help="The least release that is taken of these networks.",
    ),
]
SwitchArgument = Annotated[
    Switch, typer.Argument(metavar="on|off", help="Whether unsigned bundles are refused.")
]
FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="The folder of a `tcc.toml`.", show_default=False),
]


def add(
    key: PublicKeyFile,
    networks: Networks = None,
    expires: Expires = None,
    min_release: MinRelease = 0,
    *,
    report: ReportOptions,
) -> None:
    """Trust a public key: bundles that its owner signed run, and pass `verify`.

    Take the key from where you trust it, not from where the bundle came. Adding a key again
    replaces what was said of it.
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
        help = "take a new key from its owner; `revoked` in trust.json lists those that are"
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
            f"bundles of {', '.join(network_names)} without a signature are refused, "
            "unless they are built "
            "here from now on"
        )
    elif not trusted.require:
        report.print_note(
            "bundles without a signature still run: `tcc trust require on` refuses them"
        )
    report.print_document({"file": str(path), "key": asdict(trusted_key)})


def list_(*, report: ReportOptions) -> None:
    """List the keys that are trusted, those that are revoked, and what is required."""
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
    """Revoke a key: whatever it signed is refused from now on, whoever vouches for it."""
    from tcc.compiler.support import trust_list

    trusted = trust_list.read_trust_list()
    fingerprint = _find_fingerprint(key, trusted)
    path = trust_list.write_trust_list(trusted.revoke_key(fingerprint))
    report.print_text(f"revoked: {fingerprint[:FINGERPRINT_DIGITS]}")
    report.print_document({"file": str(path), "revoked": fingerprint})


def require(switch: SwitchArgument, *, report: ReportOptions) -> None:
    """Refuse bundles without a signature, or take them again.

    What you build yourself needs one too, once it is written: `tcc sign`.
    """
    from tcc.compiler.support import trust_list

    trusted = replace(trust_list.read_trust_list(), require=switch is Switch.ON)
    path = trust_list.write_trust_list(trusted)
    report.print_text(_describe_unsigned(trusted))
    report.print_document({"file": str(path), "require": trusted.require})


def _describe_unsigned(trusted: "TrustList") -> str:
    """Return what becomes of bundles without a signature."""
    network_names = dict.fromkeys(name for key in trusted.keys for name in key.networks)
    if trusted.require:
        return "bundles without a signature are refused"
    return (
        "bundles without a signature are "
        f"taken{', except of ' * bool(network_names)}{', '.join(network_names)}"
    )


def allow_folder(folder: FolderArgument, *, report: ReportOptions) -> None:
    """Obey the project file in a folder, although others than you can change it."""
    from tcc.compiler.support import trust_list

    trusted, folder_path = trust_list.read_trust_list(), str(folder.resolve())
    path = trust_list.write_trust_list(
        replace(trusted, folders=tuple(dict.fromkeys((*trusted.folders, folder_path))))
    )
    report.print_text(f"project files in {folder_path} are obeyed")
    report.print_document({"file": str(path), "folder": folder_path})


def _format_key(key: "TrustedKey") -> str:
    """Return what is said of a key, in a line."""
    networks = ", ".join(key.networks) or "all networks"
    until = f", until {key.expires}" if key.expires else ""
    expired = ", which is over" if key.is_expired else ""
    release_note = f", release {key.min_release} and later" if key.min_release else ""
    return f"{key.fingerprint[:FINGERPRINT_DIGITS]}  {networks}{until}{expired}{release_note}"


def _find_fingerprint(key: str, trusted: "TrustList") -> str:
    """Return the fingerprint of a key that is named by its file, or by the first digits of it.

    Raises:
        UserError: No trusted key has it, or several (E1364).
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
        message = f"{len(matches) or 'no'} trusted key{'s' * (len(matches) != 1)} begins with this"
        help = "give all 64 digits, or the file of the key; `tcc trust list` has the trusted ones"
        raise fail("E1364", message, make_command_span(f"revoke {key}"), help=help)
    return matches[0]


def _check_date(text: str) -> None:
    try:
        # As it is shown, so that it is compared as it is read.
        if date.fromisoformat(text).isoformat() == text:
            return
    except ValueError:
        pass
    at, help = make_command_span(f"--expires {text}"), "such as --expires 2027-12-31"
    raise fail("E0601", "a date is YYYY-MM-DD", at, help=help)
