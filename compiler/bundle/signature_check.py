"""Whether a bundle's signature holds: it is checked wherever a bundle is opened.

A bundle that has a signature is refused where it does not hold, is by a key that the user does not
trust for this network, or is of an older release than was seen. One that has none is refused where
the user, or the project, wants signatures.
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
"""Digits of a fingerprint that messages show."""


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """Which signatures a command takes.

    `key` is the file of a public key that the user types: it must have signed the bundle. With
    `any_key` a key that is not known is no obstacle. `required_by` names what wants signatures
    beside the trust list.
    """

    key: Path | None = None
    any_key: bool = False
    required_by: str = ""


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed a bundle: the fingerprint of a trusted key, and the release, 0 where none is."""

    fingerprint: str
    release: int


def check(
    folder: Path, manifest: Manifest, manifest_digest: str, policy: SignaturePolicy
) -> Signer | None:
    """Return who signed a bundle; None where nobody did, or nobody known, and that is allowed.

    Args:
        folder: The bundle, whose listed files are what its manifest says.
        manifest: Its manifest.
        manifest_digest: The SHA-256 of the manifest's bytes, in hex.
        policy: Which signatures are taken.

    Raises:
        MissingTool: What verifies is not installed.
        UserError: A signature is wanted and is not there (E1351), or does not hold (E1352); its key
            is not trusted (E1354), not for this network (E1355), expired (E1356) or revoked
            (E1357); the release is older than one that was seen (E1358), or it cannot be noted
            (E1359); the trust list cannot be believed (E1360).
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
        # Nothing verifies it. That its files are those in the folder shows damage, as a seal does.
        _check_files(folder, manifest, manifest_digest, envelope)
        if policy.any_key and not (policy.required_by or trust.require):
            return None
        raise _build_untrusted_error(path, envelope)
    if not PublicKey(key.pem, key.fingerprint).verify(envelope.signature, envelope.message):
        raise _build_broken_error(path, f"key {key.fingerprint[:SHOWN_DIGITS]} did not sign this")
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
    """Return the key by which an envelope is to be signed, and what it is trusted for.

    Raises:
        UserError: The list contradicts itself, or others can change it (E1360).
    """
    if typed_key:
        # The user's own word; what the list says of the key holds as well.
        return trust.find(typed_key.fingerprint) or TrustedKey(typed_key.fingerprint, typed_key.pem)
    if key := trust.find(envelope.fingerprint):
        if hashlib.sha256(key.pem.encode()).hexdigest() != key.fingerprint:
            location = make_file_span(str(trust_list.locate_trust_file()))
            message = "the list of whom you trust is damaged"
            label = f"key {key.fingerprint[:SHOWN_DIGITS]} has another fingerprint"
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
    """Return what an envelope says, once the folder holds just these files.

    Raises:
        UserError: It holds others (E1352).
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
        raise _build_broken_error(path, f"it is of the network {signed.network[:40]}")
    return signed


def _list_differences(
    folder: Path, digests: Mapping[str, str], signed: Mapping[str, str]
) -> Iterator[str]:
    """Yield how a folder differs from what was signed; `digests` are those that are known."""
    present = regular_files.walk_files(folder) - {signed_files.NAME}
    for name in sorted(present ^ signed.keys()):
        yield f"{name} was {'added' if name in present else 'taken away'} since"
    for name in sorted(present):
        if os.path.islink(folder / name):
            yield f"{name} is a link"
        elif (digests.get(name) or regular_files.hash_file(folder / name)) != signed[name]:
            yield f"{name} was changed since"


def _refuse_revoked(path: Path, fingerprint: str, trust: TrustList) -> None:
    if fingerprint in trust.revoked:
        message = "this bundle is signed by a key that is revoked"
        label = f"key {fingerprint[:SHOWN_DIGITS]}"
        help = "have its maker sign it by another key, and trust that one"
        raise fail("E1357", message, make_file_span(str(path)), label=label, help=help)


def _check_network(path: Path, key: TrustedKey, manifest: Manifest) -> None:
    source, label = make_file_span(str(path)), f"key {key.fingerprint[:SHOWN_DIGITS]}"
    if key.is_expired:
        message = f"the key that signed this bundle is trusted until {key.expires}"
        help = "have its maker sign it by a newer key; or trust this one longer: "
        help += "`tcc trust add KEY.pem --expires DATE`"
        raise fail("E1356", message, source, label=label, help=help)
    if key.networks and manifest.model.name not in key.networks:
        message = f"the key that signed this bundle is not trusted for `{manifest.model.name}`"
        label = f"{label} is trusted for {', '.join(key.networks)[:80]}"
        help = f"if it is, say so: `tcc trust add KEY.pem --for {manifest.model.name}`"
        raise fail("E1355", message, source, label=label, help=help)


def _check_release(path: Path, key: TrustedKey, manifest: Manifest, release: int) -> None:
    network = manifest.model.name
    highest = _find_highest(key, network)
    if release < max(highest, key.min_release):
        message = f"this is release {release} of `{network}`, and an older one than is taken"
        label = f"release {highest} was seen here" if highest > release else ""
        label = label or f"the trust list takes {key.min_release} and later"
        help = "take the newest bundle from its maker"
        raise fail("E1358", message, make_file_span(str(path)), label=label, help=help)
    if release > max(highest, key.min_release):
        record_release(key.fingerprint, network, release)


def _find_highest(key: TrustedKey, network: str) -> int:
    """Return the highest release that was seen; what the list says will do where none is known."""
    try:
        return find_highest_release(key.fingerprint, network)
    except UserError:
        if key.min_release:
            return 0
        raise


def _refuse_unsigned(
    folder: Path, manifest: Manifest, manifest_digest: str, policy: SignaturePolicy
) -> None:
    """Refuse a bundle without a signature where something wants one (E1351)."""
    trust, network = trust_list.read_trust_list(), manifest.model.name
    help = "have its maker sign it: `tcc sign BUNDLE --key PRIVATE.pem`"
    if policy.key:
        label = ""
    elif policy.required_by or trust.require:
        label = f"{policy.required_by or trust_list.locate_trust_file()} wants a signature"
    elif trust.has_key_for(network) and not policy.any_key and not is_local_build(manifest_digest):
        label = f"bundles of `{network}` are signed only, since you trust a key for it"
        help = f"{help}, or build it here again"
    else:
        return
    raise fail(
        "E1351", "this bundle is not signed", make_file_span(str(folder)), label=label, help=help
    )


def _build_untrusted_error(path: Path, envelope: Envelope) -> UserError:
    message = "this bundle is signed by a key that you do not trust"
    label = f"key {envelope.fingerprint[:SHOWN_DIGITS]}"
    help = "take its maker's public key from where you trust it: `tcc trust add PUBLIC.pem`"
    return fail("E1354", message, make_file_span(str(path)), label=label, help=help)


def _build_broken_error(path: Path, label: str) -> UserError:
    message = "the signature of this bundle does not hold"
    help = "take the bundle again from its maker, and the key from where you trust it"
    return fail("E1352", message, make_file_span(str(path)), label=label[:160], help=help)


def record_build(network: str, manifest_digest: str) -> None:
    """Note a bundle that was built just now, where a key is trusted for its network.

    Args:
        network: The network's name.
        manifest_digest: The SHA-256 of the manifest's bytes, in hex.
    """
    # A list that is not believed is said when the bundle is opened: this one is written already.
    with suppress(UserError):
        if trust_list.read_trust_list().has_key_for(network):
            user_folders.LOCAL_BUILDS.add((manifest_digest,))


def is_local_build(manifest_digest: str) -> bool:
    """Whether the bundle of this manifest was built here."""
    return user_folders.LOCAL_BUILDS.contains(manifest_digest)


def find_highest_release(fingerprint: str, network: str) -> int:
    """Return the highest release that was seen; 0 where none was.

    Raises:
        UserError: Others can change what was noted (E1359).
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
    """Note a release that is higher than what was seen.

    Raises:
        UserError: It cannot be noted (E1359): a lower one would be taken later.
    """
    folder = _locate_releases(fingerprint, network)
    if folder is None:
        raise _build_record_error(Path("~"), "there is no home")
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
    # A network's name need not be one that a file can have.
    digest = hashlib.sha256(f"{fingerprint}\0{network}".encode()).hexdigest()
    return folder and folder / digest[:40]


def _build_record_error(folder: Path, reason: str) -> UserError:
    message = "which releases were seen cannot be noted: an older one could come back unnoticed"
    help = (
        "set XDG_STATE_HOME to a folder that only you can write to, or say the least release "
        "that is taken: `tcc trust add KEY.pem --min-release N`"
    )
    return fail("E1359", message, make_file_span(str(folder)), label=reason, help=help)
