"""Ed25519 keys for runner programs: a program embeds the public key; the private key signs it."""

from pathlib import Path

from tcc.compiler.bundle import bundle_folder, signing_key
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.ir.backend import RunnerSignature
from tcc.compiler.ir.device import Device
from tcc.compiler.support import ed25519_pem, regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span


def read_public(path: Path) -> bytes:
    """Return the 32 bytes of the public key in a file.

    Raises:
        UserError: The file cannot be read (E0603), or is not an Ed25519 public key (E1366).
    """
    public_key = ed25519_pem.decode(_read_key(path))
    if public_key is None:
        raise _build_key_error(path, "public", "")
    return public_key


def make_signature(bundle: Bundle, device: Device, path: Path) -> tuple[RunnerSignature, bytes]:
    """Return the signature that a bundle's program requires, and its bytes by a private key.

    Args:
        bundle: A bundle that was read, so that its files are checked.
        device: Its target.
        path: The file of the private key, in PEM.

    Raises:
        MissingTool: The signing package is not installed.
        UserError: The key cannot be read (E0603), is no Ed25519 private key (E1366) or not the one
            that the program requires (E1368), or the program requires no signature (E1367).
    """
    content = _read_key(path)
    signing_key.require_package()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(content, None)
    except Exception as error:  # unsupported key types raise more than ValueError
        raise _build_key_error(
            path, "private", (str(error).splitlines() or [""])[0][:160]
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _build_key_error(path, "private", "it is of another type")
    required = device.read_runner_signature(bundle.model)
    if required is None:
        message = "the program of this bundle requires no signature"
        help = "build it with `--require-signature PUBLIC.pem`; `--key` signs any bundle"
        raise fail("E1367", message, make_file_span(str(bundle.folder)), help=help)
    if key.public_key().public_bytes_raw() != required.public_key:
        message = "the program of this bundle requires a signature by another key"
        label = f"its public key is {next(bundle.model.glob('*-run.pem')).name}"
        help = "give the matching private key, or build with the public part of this one"
        raise fail("E1368", message, make_file_span(str(path)), label=label, help=help)
    return required, key.sign(required.message)


def store_signature(bundle: Bundle, required: RunnerSignature, signature: bytes) -> Path:
    """Write a signature next to the program, as a file of the bundle; return its path.

    A signature of the whole bundle is removed, because it covers the previous files.

    Raises:
        UserError: The folder cannot be written, or another bundle replaced it (E0622).
    """
    points = bundle.manifest.operating_points
    updated_bundle = bundle_folder.rewrite_bundle(bundle, points, {required.file: signature})
    return updated_bundle.model / required.file


def require_signed(bundle: Bundle, device: Device) -> None:
    """Refuse a bundle with a program that requires a signature and does not have it.

    Raises:
        MissingTool: The package that verifies signatures is not installed.
        UserError: The signature is missing or invalid (E1369).
    """
    required = device.read_runner_signature(bundle.model)
    if required is None:
        return
    signing_key.require_package()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    path = bundle.model / required.file
    try:
        with regular_files.open_file(path) as file:
            signature = file.read(ed25519_pem.MAX_BYTES)
        Ed25519PublicKey.from_public_bytes(required.public_key).verify(signature, required.message)
    except (OSError, ValueError, InvalidSignature):
        message = "the program of this bundle would not start: its signature is missing or invalid"
        help = "add `--runner-key PRIVATE.pem`"
        raise fail("E1369", message, make_file_span(str(path)), help=help) from None


def _read_key(path: Path) -> bytes:
    return regular_files.read_file(path, "read the key", ed25519_pem.MAX_BYTES + 1)


def _build_key_error(path: Path, kind: str, label: str) -> UserError:
    message = f"this is not a {kind} Ed25519 key in PEM"
    help = "docs/security.md has the two commands that create a private key and its public part"
    return fail("E1366", message, make_file_span(str(path)), label=label, help=help)
