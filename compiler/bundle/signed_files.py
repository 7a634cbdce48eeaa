"""The content of a signature: the SHA-256 of every file of a bundle, and the release.

`model.sig` has the format of OpenSSF model signing: a Sigstore bundle with a DSSE envelope around
an in-toto statement. The OpenSSF tool verifies it too. The release is an extra field of the
statement's predicate, and other readers ignore it.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tcc.compiler.bundle import signing_key
from tcc.compiler.bundle.signing_key import PublicKey
from tcc.compiler.support import atomic_files, regular_files
from tcc.compiler.support.diagnostics import fail, make_file_span

NAME = "model.sig"
"""The file in a bundle's folder. It covers every other file, and no manifest lists it."""
MAX_BYTES = 16 << 20
"""Largest signature that is read; it has a few hundred bytes for each file of a bundle."""
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"


class MalformedError(ValueError):
    """A file is not a signature that tcc can read."""


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """The signed files: their SHA-256 in hex, by path with `/`.

    `network` and `release` are the signer's statements; release 0 is none.
    """

    files: Mapping[str, str]
    network: str = ""
    release: int = 0


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signature, its payload, and the fingerprint of its key, as stated in `model.sig`."""

    payload: bytes
    signature: bytes
    fingerprint: str

    @property
    def message(self) -> bytes:
        """The signed bytes: the envelope's pre-authentication encoding."""
        return build_message(self.payload)


def build_message(payload: bytes) -> bytes:
    """Return the bytes to sign for a payload (DSSE version 1)."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def build_payload(folder: str, signed: SignedFiles) -> bytes:
    """Return the statement about files in a folder of this name."""
    ordered = sorted(signed.files.items(), key=lambda file: Path(file[0]))
    resources = [
        {"name": name, "algorithm": "sha256", "digest": digest} for name, digest in ordered
    ]
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [NAME],
    }
    predicate = {
        "serialization": serialization,
        "resources": resources,
        "release": {"network": signed.network, "number": signed.release},
    }
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": folder, "digest": {"sha256": _compute_root_digest(resources)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    return json.dumps(statement, ensure_ascii=False).encode()


def encode_signature(payload: bytes, signature: bytes, fingerprint: str) -> bytes:
    """Return the bytes of `model.sig`."""
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    material = {"publicKey": {"hint": fingerprint}, "tlogEntries": []}
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": material,
        "dsseEnvelope": envelope,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def read_envelope(path: Path) -> Envelope:
    """Return the envelope in `model.sig`, without verifying it.

    Raises:
        MalformedError: It is no such file.
        OSError: It cannot be read.
    """
    with regular_files.open_file(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise MalformedError(f"it has more than {MAX_BYTES:,} bytes")
    try:
        return _parse_envelope(json.loads(content.decode()))
    except MalformedError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedError(_describe(error)) from None


def decode_payload(payload: bytes) -> SignedFiles:
    """Return the signed files of a statement.

    Raises:
        MalformedError: It is of another type, incomplete, or contradicts itself.
    """
    try:
        return _parse_statement(json.loads(payload.decode()))
    except MalformedError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedError(_describe(error)) from None


def _parse_envelope(document: Any) -> Envelope:
    envelope = document["dsseEnvelope"]
    (signature,) = envelope["signatures"]
    types = (str(document["mediaType"]).partition(".v")[0], envelope["payloadType"])
    if types != (MEDIA_TYPE.partition(".v")[0], PAYLOAD_TYPE):
        raise MalformedError("it is of another type")
    fingerprint = document["verificationMaterial"]["publicKey"]["hint"]
    statement = base64.b64decode(envelope["payload"], validate=True)
    signed = base64.b64decode(signature["sig"], validate=True)
    return Envelope(statement, signed, str(fingerprint))


def _parse_statement(document: Any) -> SignedFiles:
    predicate, (subject,) = document["predicate"], document["subject"]
    serialization = predicate["serialization"]
    types = (
        document["_type"],
        document["predicateType"],
        serialization["method"],
        serialization["hash_type"],
    )
    if types != (STATEMENT_TYPE, PREDICATE_TYPE, "files", "sha256"):
        raise MalformedError("its statement is of another type")
    resources = predicate["resources"]
    if any(resource["algorithm"] != "sha256" for resource in resources):
        raise MalformedError("its digests are not SHA-256")
    if subject["digest"]["sha256"] != _compute_root_digest(resources):
        raise MalformedError("its digests contradict each other")
    files = {str(resource["name"]): str(resource["digest"]) for resource in resources}
    if len(files) != len(resources):
        raise MalformedError("it lists a file twice")
    release = predicate.get("release", {"network": "", "number": 0})
    number = release["number"]
    if type(number) is not int or number < 0:
        raise MalformedError("its release is not a number")
    return SignedFiles(files, str(release["network"]), number)


def _compute_root_digest(resources: Any) -> str:
    """Return the digest over all digests."""
    return hashlib.sha256(
        b"".join(bytes.fromhex(resource["digest"]) for resource in resources)
    ).hexdigest()


def _describe(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120] or type(error).__name__


def sign_bundle(folder: Path, network: str, key: Path, release: int) -> tuple[Path, PublicKey]:
    """Sign a bundle; return the signature's file and the public key.

    Args:
        folder: A bundle that was read, so that its files are checked.
        network: Name of its network.
        key: The file of an elliptic-curve private key, in PEM.
        release: Release number of its network.

    Raises:
        MissingTool: The signing package is not installed.
        UserError: It is no such key (E1353), the folder has a link (E1352), or the signature cannot
            be written.
    """
    names = sorted(regular_files.walk_files(folder) - {NAME})
    for name in names:
        if (folder / name).is_symlink():
            problem = "a link cannot be signed: its destination may change"
            raise fail("E1352", problem, make_file_span(str(folder / name)), help="remove it")
    digests = {name: regular_files.hash_file(folder / name) for name in names}
    signed = SignedFiles(digests, network, release)
    statement = build_payload(folder.resolve().name, signed)
    signature, public = signing_key.sign(key, build_message(statement))
    content = encode_signature(statement, signature, public.fingerprint)
    atomic_files.write_file(folder / NAME, content)
    return folder / NAME, public
