"""Verify a bundle's signature whenever a bundle is opened.

A signed bundle is refused if its signature is invalid, if its key is not trusted for this network,
or if an older release than the newest seen one is given. An unsigned bundle is refused if the user
or the project requires signatures.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.bundle import signed_files, signing_key
from tcc.compiler.bundle.manifest import NAME as MANIFEST
from tcc.compiler.bundle.manifest import Manifest
from tcc.compiler.bundle.signed_files import Envelope, MalformedError, SignedFiles
from tcc.compiler.bundle.signing_key import PublicKey
from tcc.compiler.support import atomic_files, regular_files, trust_list, user_folders
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.trust_list import TrustedKey, TrustList

SHOWN_DIGITS = 16
"""Number of digits of a fingerprint in messages."""


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """Which signatures a command accepts.

    `key` is the file of a public key from the command line; it must have signed the bundle. With
    `any_key`, an unknown key is accepted. `required_by` names what requires signatures in addition
    to the trust list.
    """

    key: Path | None = None
    any_key: bool = False
    required_by: str = ""


@dataclass(frozen=True, slots=True)
class Signer:
    """The fingerprint of the trusted key that signed a bundle, and the release (0 if none)."""

    fingerprint: str
    release: int


def check(
    folder: Path, manifest: Manifest, manifest_digest: str, policy: SignaturePolicy
) -> Signer | None:
    """Return who signed a bundle; None if it is unsigned or the key is unknown, if that is allowed.

    Args:
        folder: The bundle, with its listed files already checked against its manifest.
        manifest: Its manifest.
        manifest_digest: The SHA-256 of the manifest's bytes, in hex.
        policy: Which signatures are accepted.

    Raises:
        MissingTool: The package that verifies signatures is not installed.
        UserError: A required signature is missing (E1351) or invalid (E1352); its key is not
            trusted (E1354), not for this network (E1355), expired (E1356) or revoked (E1357); the
            release is older than one that was seen (E1358), or cannot be recorded (E1359); the
            trust list is not reliable (E1360).
    """
    typed_key = signing_key.read_public(policy.key, "--key") if policy.key else None
    trust = trust_list.read_trust_list()
    path = folder / signed_files.NAME
    if not os.path.lexists(path):
        _refuse_unsigned(folder, manifest, manifest_digest, policy)
        return None
    signing_key.require_package()
    envelope = _read_signature(path)
    key = _find_key(envelope, trust, typed_key)
    _refuse_revoked(path, key.fingerprint if key else envelope.fingerprint, trust)
    if key is None:
        # Nothing verifies it. Matching files show that nothing was damaged, as a seal does.
        _check_files(folder, manifest, manifest_digest, envelope)
        if policy.any_key and not (policy.required_by or trust.require):
            return None
        raise _build_untrusted_error(path, envelope)
    if not PublicKey(key.pem, key.fingerprint).verify(envelope.signature, envelope.message):
        label = f"it was not made by key {key.fingerprint[:SHOWN_DIGITS]}, or was changed since"
        raise _build_broken_error(path, label)
    signed = _check_files(folder, manifest, manifest_digest, envelope)
    _check_network(path, key, manifest)
    _check_release(path, key, manifest, signed.release)
    return Signer(key.fingerprint, signed.release)


def _read_signature(path: Path) -> Envelope:
    try:
        return signed_files.read_envelope(path)
    except MalformedError as error:
        raise _build_broken_error(path, str(error)) from None
    except OSError as error:
        raise atomic_files.explain(error, path, "read the signature") from error


def _find_key(
    envelope: Envelope, trust: TrustList, typed_key: PublicKey | None
) -> TrustedKey | None:
    """Return the key that must have signed an envelope, with what it is trusted for.

    Raises:
        UserError: The list contradicts itself, or others can change it (E1360).
    """
    if typed_key:
        # The user trusts the key on the command line. The list may restrict it further.
        return trust.find(typed_key.fingerprint) or TrustedKey(typed_key.fingerprint, typed_key.pem)
    if key := trust.find(envelope.fingerprint):
        if hashlib.sha256(key.pem.encode()).hexdigest() != key.fingerprint:
            location = make_file_span(str(trust_list.locate_trust_file()))
            message = "the list of trusted keys is damaged"
            label = f"key {key.fingerprint[:SHOWN_DIGITS]} does not match its fingerprint"
            raise fail("E1360", message, location, label=label, help=trust_list.HELP)
        return key
    for path in trust_list.list_key_files():
        copied_key = signing_key.read_public(path)
        if copied_key.fingerprint == envelope.fingerprint:
            return TrustedKey(copied_key.fingerprint, copied_key.pem)
    return None


def _check_files(
    folder: Path, manifest: Manifest, manifest_digest: str, envelope: Envelope
) -> SignedFiles:
    """Return the content of an envelope after checking that it lists exactly the folder's files.

    Raises:
        UserError: The files differ (E1352).
    """
    path = folder / signed_files.NAME
    try:
        signed = signed_files.decode_payload(envelope.payload)
    except MalformedError as error:
        raise _build_broken_error(path, str(error)) from None
    digests = {file.path: file.sha256 for file in manifest.files} | {MANIFEST: manifest_digest}
    for difference in _list_differences(folder, digests, signed.files):
        raise _build_broken_error(path, difference)
    if signed.network not in {"", manifest.model.name}:
        label = f"it is for the network {signed.network[:40]}, not {manifest.model.name[:40]}"
        raise _build_broken_error(path, label)
    return signed


def _list_differences(
    folder: Path, digests: Mapping[str, str], signed: Mapping[str, str]
) -> Iterator[str]:
    """Yield the differences between a folder and the signed files; `digests` has known hashes."""
    present = regular_files.walk_files(folder) - {signed_files.NAME}
    for name in sorted(present ^ signed.keys()):
        yield f"{name} was {'added' if name in present else 'removed'} after signing"
    for name in sorted(present):
        if os.path.islink(folder / name):
            yield f"{name} is a link"
        elif (digests.get(name) or regular_files.hash_file(folder / name)) != signed[name]:
            yield f"{name} was changed after signing"


def _refuse_revoked(path: Path, fingerprint: str, trust: TrustList) -> None:
    if fingerprint in trust.revoked:
        message = "this bundle is signed by a revoked key"
        label = f"key {fingerprint[:SHOWN_DIGITS]}"
        help = "ask the publisher to sign it with another key, and trust that key"
        raise fail("E1357", message, make_file_span(str(path)), label=label, help=help)


def _check_network(path: Path, key: TrustedKey, manifest: Manifest) -> None:
    source, label = make_file_span(str(path)), f"key {key.fingerprint[:SHOWN_DIGITS]}"
    if key.is_expired:
        message = f"the key that signed this bundle was trusted only until {key.expires}"
        help = "ask the publisher to sign it with a newer key, or extend the trust: "
        help += "`tcc trust add KEY.pem --expires DATE`"
        raise fail("E1356", message, source, label=label, help=help)
    if key.networks and manifest.model.name not in key.networks:
        message = f"the key that signed this bundle is not trusted for `{manifest.model.name}`"
        label = f"{label} is trusted only for {', '.join(key.networks)[:80]}"
        help = f"to trust it: `tcc trust add KEY.pem --for {manifest.model.name}`"
        raise fail("E1355", message, source, label=label, help=help)


def _check_release(path: Path, key: TrustedKey, manifest: Manifest, release: int) -> None:
    network = manifest.model.name
    highest = _find_highest(key, network)
    if release < max(highest, key.min_release):
        message = f"release {release} of `{network}` is older than accepted"
        label = f"release {highest} was seen here" if highest > release else ""
        label = label or f"the trust list accepts release {key.min_release} and later"
        help = "get the newest bundle from its publisher"
        raise fail("E1358", message, make_file_span(str(path)), label=label, help=help)
    if release > max(highest, key.min_release):
        record_release(key.fingerprint, network, release)


def _find_highest(key: TrustedKey, network: str) -> int:
    """Return the highest release seen; 0 if the record is unusable but the trust list has a limit.

    Raises:
        UserError: The record is unusable and the list has no limit (E1359).
    """
    try:
        return find_highest_release(key.fingerprint, network)
    except UserError:
        if key.min_release:
            return 0
        raise


def _refuse_unsigned(
    folder: Path, manifest: Manifest, manifest_digest: str, policy: SignaturePolicy
) -> None:
    """Refuse an unsigned bundle if a signature is required (E1351)."""
    trust, network = trust_list.read_trust_list(), manifest.model.name
    help = "ask the publisher to sign it: `tcc sign BUNDLE --key PRIVATE.pem`"
    if policy.key:
        label = ""
    elif policy.required_by or trust.require:
        label = f"{policy.required_by or trust_list.locate_trust_file()} requires a signature"
    elif trust.has_key_for(network) and not policy.any_key and not is_local_build(manifest_digest):
        label = f"you trust a key for `{network}`, so its bundles must be signed"
        help = f"{help}, or build it here"
    else:
        return
    raise fail(
        "E1351", "this bundle is not signed", make_file_span(str(folder)), label=label, help=help
    )


def _build_untrusted_error(path: Path, envelope: Envelope) -> UserError:
    message = "this bundle is signed by a key that you do not trust"
    label = f"key {envelope.fingerprint[:SHOWN_DIGITS]}"
    help = "get the publisher's public key from a trusted source: `tcc trust add PUBLIC.pem`"
    return fail("E1354", message, make_file_span(str(path)), label=label, help=help)


def _build_broken_error(path: Path, label: str) -> UserError:
    message = "the signature of this bundle is invalid"
    help = "get the bundle from its publisher again, and the key from a trusted source"
    return fail("E1352", message, make_file_span(str(path)), label=label[:160], help=help)


def record_build(network: str, manifest_digest: str) -> None:
    """Record a bundle that was just built, if a key is trusted for its network.

    Args:
        network: The network's name.
        manifest_digest: The SHA-256 of the manifest's bytes, in hex.
    """
    # An unreliable trust list is reported when the bundle is opened; the bundle is written already.
    with suppress(UserError):
        if trust_list.read_trust_list().has_key_for(network):
            user_folders.LOCAL_BUILDS.add((manifest_digest,))


def is_local_build(manifest_digest: str) -> bool:
    """Whether the bundle with this manifest was built here."""
    return user_folders.LOCAL_BUILDS.contains(manifest_digest)


def find_highest_release(fingerprint: str, network: str) -> int:
    """Return the highest release that was seen; 0 if none.

    Raises:
        UserError: Others can change the record (E1359).
    """
    folder = _locate_releases(fingerprint, network)
    if folder is None or not os.path.lexists(folder):
        return 0
    if reason := user_folders.find_obstacle(folder.parent) or user_folders.find_obstacle(folder):
        raise _build_record_error(folder, reason)
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise _build_record_error(folder, error.strerror or str(error)) from error
    return max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0)


def record_release(fingerprint: str, network: str, release: int) -> None:
    """Record a release that is higher than all seen before.

    Raises:
        UserError: It cannot be recorded (E1359): an older one would be accepted later.
    """
    folder = _locate_releases(fingerprint, network)
    if folder is None:
        raise _build_record_error(Path("~"), "there is no home folder")
    try:
        user_folders.make_folder(folder)
        if not (reason := user_folders.find_obstacle(folder)):
            (folder / str(release)).touch(0o600)
            return
    except OSError as error:
        reason = error.strerror or str(error)
    raise _build_record_error(folder, reason)


def _locate_releases(fingerprint: str, network: str) -> Path | None:
    folder = user_folders.locate_folder("XDG_STATE_HOME", "releases")
    # A network's name may not be a valid file name.
    digest = hashlib.sha256(f"{fingerprint}\0{network}".encode()).hexdigest()
    return folder and folder / digest[:40]


def _build_record_error(folder: Path, reason: str) -> UserError:
    message = "the newest seen release cannot be recorded, so an older one could pass unnoticed"
    help = (
        "set XDG_STATE_HOME to a folder that only you can write to, or set the lowest accepted "
        "release: `tcc trust add KEY.pem --min-release N`"
    )
    return fail("E1359", message, make_file_span(str(folder)), label=reason, help=help)
