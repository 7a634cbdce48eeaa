"""The user's trust list: trusted public keys, revoked keys, and trusted project folders.

`tcc trust` writes it to `~/.config/tcc/trust.json`. It is used only if nobody except the user and
root can change it. A public key that the user copies to `~/.config/tcc/keys/NAME.pem` is trusted
too, for every network.
"""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tcc.compiler.support import atomic_files, json_records, regular_files, user_folders
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.json_records import Record

VERSION = 1
MAX_BYTES = 1 << 20
"""Largest trust list that is read."""
HELP = "`tcc trust list` shows what is trusted; docs/security.md describes the files"


class TrustedKey(Record, frozen=True):
    """A public key, in PEM, and what it is trusted for.

    `fingerprint` is the SHA-256 of the PEM. `networks` are the names of networks whose bundles it
    may sign; empty means all. `expires` is the last day, in UTC, on which it is trusted.
    `min_release` is the lowest release of these networks that is accepted.
    """

    fingerprint: str
    pem: str
    networks: tuple[str, ...] = ()
    expires: str | None = None
    min_release: int = 0

    @property
    def is_expired(self) -> bool:
        """Whether its last day has passed."""
        today = datetime.now(UTC).date()
        return self.expires is not None and date.fromisoformat(self.expires) < today


class TrustList(Record, frozen=True):
    """The content of `trust.json`; empty without one.

    `revoked` are fingerprints; nothing overrides a revocation. `require` means that bundles without
    a signature are refused.
    """

    tcc_trust: int = VERSION
    require: bool = False
    keys: tuple[TrustedKey, ...] = ()
    revoked: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def find(self, fingerprint: str) -> TrustedKey | None:
        """Return the key with a fingerprint; None if there is none."""
        return next((key for key in self.keys if key.fingerprint == fingerprint), None)

    def has_key_for(self, network: str) -> bool:
        """Whether a key is trusted for this network by name."""
        return any(network in key.networks for key in self.keys)

    def add_key(self, key: TrustedKey) -> "TrustList":
        """Return the list with a key added; it replaces a key with the same fingerprint."""
        other_keys = (
            trusted_key for trusted_key in self.keys if trusted_key.fingerprint != key.fingerprint
        )
        return replace(self, keys=(*other_keys, key))

    def revoke_key(self, fingerprint: str) -> "TrustList":
        """Return the list with a key removed and revoked."""
        keys = tuple(
            trusted_key for trusted_key in self.keys if trusted_key.fingerprint != fingerprint
        )
        revoked = tuple(dict.fromkeys((*self.revoked, fingerprint)))
        return replace(self, keys=keys, revoked=revoked)


def locate_trust_file() -> Path | None:
    """Return the path of the trust list, which may not exist; None without a home folder."""
    return user_folders.locate_folder("XDG_CONFIG_HOME", "trust.json")


def read_trust_list() -> TrustList:
    """Return the trust list; an empty one if there is no file.

    Raises:
        UserError: Other users can change the file, or it is damaged (E1360).
    """
    path = locate_trust_file()
    if path is None or not path.parent.is_dir():
        return TrustList()
    if reason := user_folders.find_obstacle(path.parent) or user_folders.find_exposure(path):
        raise _fail_unbelieved(path, reason)
    try:
        with regular_files.open_file(path) as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return TrustList()
    except OSError as error:
        raise atomic_files.explain(error, path, "read the trust list") from error
    if len(content) > MAX_BYTES:
        message = f"the trust list is larger than {MAX_BYTES >> 20} MiB"
        raise fail("E1360", message, make_file_span(str(path)))
    return _decode(content, path)


def write_trust_list(trusted: TrustList) -> Path:
    """Write the trust list; return its path.

    Raises:
        UserError: There is no home folder, or the file cannot be written.
        MachineError: The disk is full or broken.
    """
    path = locate_trust_file()
    if path is None:
        message, help = "there is no home folder for the trust list", "set XDG_CONFIG_HOME"
        raise fail("E0603", message, make_file_span("~"), help=help)
    try:
        user_folders.make_folder(path.parent)
    except OSError as error:
        raise atomic_files.explain(error, path, "write this") from error
    if reason := user_folders.find_obstacle(path.parent):
        raise _fail_unbelieved(path, reason)
    text = json.dumps(json_records.encode(trusted), indent=2, ensure_ascii=False)
    atomic_files.write_file(path, f"{text}\n".encode())
    return path


def list_key_files() -> tuple[Path, ...]:
    """Return the key files that the user copied into the folder `keys`.

    Raises:
        UserError: Other users can change one of them, or add one (E1360).
    """
    folder = user_folders.locate_folder("XDG_CONFIG_HOME", "keys")
    if folder is None or not folder.is_dir():
        return ()
    if reason := user_folders.find_obstacle(folder):
        raise _fail_unbelieved(folder, reason)
    paths = tuple(sorted(folder.glob("*.pem")))
    for path in paths:
        if reason := user_folders.find_exposure(path):
            raise _fail_unbelieved(path, reason)
    return paths


def _fail_unbelieved(path: Path, reason: str) -> UserError:
    message = "the trust list is not used: other users could have written it"
    help = f"make it writable by you alone (`chmod go-w`), then check its content: {HELP}"
    return fail("E1360", message, make_file_span(str(path)), label=reason, help=help)


def _decode(content: bytes, path: Path) -> TrustList:
    try:
        document = json_records.parse(content)
        trusted = json_records.decode(TrustList, document)
        _check(trusted, document)
    except ValueError as error:
        message = "the trust list is damaged"
        help = "fix it, or remove it and trust each key again: `tcc trust add KEY.pem`"
        label = str(error)[:160]
        raise fail("E1360", message, make_file_span(str(path)), label=label, help=help) from None
    return trusted


def _check(trusted: TrustList, document: Any) -> None:
    """Refuse an incomplete trust list: without a revoked key it would trust too much.

    Raises:
        ValueError: It is incomplete.
    """
    if trusted.tcc_trust != VERSION:
        raise ValueError(f"`tcc_trust` is {trusted.tcc_trust}, but this tcc reads {VERSION}")
    for record, fields in (
        (trusted, document),
        *zip(trusted.keys, document.get("keys", ()), strict=True),
    ):
        missing = [name for name in record.__struct_fields__ if name not in fields]
        if missing:
            raise ValueError(f"`{missing[0]}` is missing")
    for key in trusted.keys:
        if key.expires is not None:
            date.fromisoformat(key.expires)
