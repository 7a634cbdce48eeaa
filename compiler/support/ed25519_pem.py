"""Ed25519 public keys in PEM, the form that `openssl pkey -pubout` writes (RFC 8410)."""

import base64
import re

KEY_BYTES = 32
MAX_BYTES = 1 << 12
"""Bytes of the largest key file that is read."""
_DER_HEAD = bytes.fromhex("302a300506032b6570032100")
"""The DER prefix of such a key."""
_PEM = re.compile(
    r"-----BEGIN PUBLIC KEY-----\r?\n([\w+/=]+)\r?\n-----END PUBLIC KEY-----\s*", re.ASCII
)


def encode(public_key: bytes) -> str:
    """Return the PEM text of a key's 32 bytes."""
    body = base64.b64encode(_DER_HEAD + public_key).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def decode(content: bytes) -> bytes | None:
    """Return the 32 bytes of a PEM key; None if the text is anything else."""
    matched = _PEM.fullmatch(content.decode("ascii", "replace"))
    try:
        der = base64.b64decode(matched[1], validate=True) if matched else b""
    except ValueError:
        return None
    if not der.startswith(_DER_HEAD) or len(der) != len(_DER_HEAD) + KEY_BYTES:
        return None
    return der.removeprefix(_DER_HEAD)
