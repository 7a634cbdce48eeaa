"""Keys that sign bundles: ECDSA on the NIST curves, as in OpenSSF model signing."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

PACKAGE = "cryptography"
MAX_BYTES = 1 << 16
"""Largest key file that is read."""
CURVES: Mapping[str, str] = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
"""The supported curves, and the hash of each."""
_DER_PREFIXES: Mapping[bytes, str] = {
    bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"): "SECP256R1",
    bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200"): "SECP384R1",
    bytes.fromhex("30819b301006072a8648ce3d020106052b8104002303818600"): "SECP521R1",
}
"""First bytes of the DER of a public key on each curve, up to the point (RFC 5480)."""
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\n([\w+/=\n]+)-----END PUBLIC KEY-----\n", re.ASCII)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key in PEM; its fingerprint is the SHA-256 of the PEM in hex."""

    pem: str
    fingerprint: str

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the signature of a message.

        Raises:
            MissingTool: The package that verifies signatures is not installed.
        """
        require_package()
        from cryptography.exceptions import InvalidSignature

        key = _load_public(self.pem.encode())
        try:
            key.verify(signature, message, _create_algorithm(key.curve.name))
        except InvalidSignature:
            return False
        return True


def read_public(path: Path, option: str = "") -> PublicKey:
    """Return the public key in a file; `option` is the command-line option that names it, if any.

    Raises:
        MissingTool: The package that reads it is not installed.
        UserError: It cannot be read, or is no such key (E1353).
    """
    content = _read_content(path, "public", option)
    require_package()
    try:
        return _build_public_key(_load_public(content))
    except (ValueError, TypeError) as error:
        raise _build_key_error(path, error, "public") from error


def sign(path: Path, message: bytes) -> tuple[bytes, PublicKey]:
    """Return the signature of a message by the private key in a file, and its public key.

    Raises:
        MissingTool: The signing package is not installed.
        UserError: It cannot be read, or is no such key (E1353).
    """
    content = _read_content(path, "private", "--key")
    require_package()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(content, None)
    except Exception as error:  # unsupported curves and ciphers raise more than ValueError
        raise _build_key_error(path, error, "private") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _build_key_error(path, ValueError("it is of another type"), "private")
    try:
        public = _build_public_key(_check_curve(key.public_key()))
    except ValueError as error:
        raise _build_key_error(path, error, "private") from error
    return key.sign(message, _create_algorithm(key.curve.name)), public


def require_package() -> None:
    """Check that the signing package is installed.

    Raises:
        MissingTool: It is not installed.
    """
    if find_spec(PACKAGE) is None:
        raise MissingTool(Tool(PACKAGE, "sign bundles and to verify signatures", None))


def _load_public(content: bytes) -> "ec.EllipticCurvePublicKey":
    """Return the key of a PEM.

    Raises:
        ValueError: It is not on a supported elliptic curve.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    if simple_key := _load_simple_pem(content):
        return simple_key
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(content)
    except Exception as error:  # as for private keys
        raise ValueError(str(error).partition("\n")[0] or type(error).__name__) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("it is of another type")  # noqa: TRY004 - it is about a file's content
    return _check_curve(key)


def _load_simple_pem(content: bytes) -> "ec.EllipticCurvePublicKey | None":
    """Return the key of a PEM in the form that tcc and OpenSSL write; None for any other.

    The general parser takes longer to load than all other verification takes.

    Raises:
        ValueError: Its point is not on the curve.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    pem_match = _PEM.fullmatch(content.decode("ascii", "replace"))
    der = base64.b64decode(pem_match[1]) if pem_match else b""
    for prefix, curve in _DER_PREFIXES.items():
        if der.startswith(prefix):
            point = der.removeprefix(prefix)
            return ec.EllipticCurvePublicKey.from_encoded_point(getattr(ec, curve)(), point)
    return None


def _check_curve(key: "ec.EllipticCurvePublicKey") -> "ec.EllipticCurvePublicKey":
    if key.curve.name not in CURVES:
        raise ValueError(f"its curve is {key.curve.name}, not one of {', '.join(CURVES)}")
    return key


def _build_public_key(key: "ec.EllipticCurvePublicKey") -> PublicKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(pem.decode(), hashlib.sha256(pem).hexdigest())


def _create_algorithm(curve: str) -> "ec.ECDSA":
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(getattr(hashes, CURVES[curve])())


def _read_content(path: Path, kind: str, option: str) -> bytes:
    option_text = f" given by {option}" if option else ""
    content = regular_files.read_file(path, f"read the {kind} key{option_text}", MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        problem = ValueError(f"the file is larger than {MAX_BYTES >> 10} KiB")
        raise _build_key_error(path, problem, kind)
    return content


def _build_key_error(path: Path, error: Exception, kind: str) -> UserError:
    message = f"this is not a {kind} elliptic-curve key"
    label = (str(error).splitlines() or [type(error).__name__])[0][:160]
    help = "docs/security.md has the two commands that create a private key and its public part"
    return fail("E1353", message, make_file_span(str(path)), label=label, help=help)
