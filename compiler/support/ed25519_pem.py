"""Ed25519 public keys as PEM, the form that `openssl pkey -pubout` writes (RFC 8410)."""

import base64
import re

KEY_BYTES = 32
MAX_BYTES = 1 << 12
"""Largest file of a key that is read."""
_DER_HEAD = bytes.fromhex("302a300506032b6570032100")
"""What the DER of such a key begins with."""
_PEM = re.compile(
    r"-----BEGIN PUBLIC KEY-----\r?\n([\w+/=]+)\r?\n-----END PUBLIC KEY-----\s*", re.ASCII
)


def encode(public_key: bytes) -> str:
    """Return the PEM of a key's 32 bytes."""
    body = base64.b64encode(_DER_HEAD + public_key).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def decode(content: bytes) -> bytes | None:
    """Return the 32 bytes of the key in a PEM; None where it holds no such key, or more."""
    matched = _PEM.fullmatch(content.decode("ascii", "replace"))
    try:
        der = base64.b64decode(matched[1], validate=True) if matched else b""
    except ValueError:
        return None
    if not der.startswith(_DER_HEAD) or len(der) != len(_DER_HEAD) + KEY_BYTES:
        return None
    return der.removeprefix(_DER_HEAD)
