"""Ed25519 keys of runner programs: the public one goes into a program, the private one signs it."""

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
        UserError: It cannot be read (E0603), or is no such key (E1366).
    """
    public_key = ed25519_pem.decode(_read_key(path))
    if public_key is None:
        raise _build_key_error(path, "public", "")
    return public_key


def make_signature(bundle: Bundle, device: Device, path: Path) -> tuple[RunnerSignature, bytes]:
    """Return what the program of a bundle asks for, and the signature by a private key.

    Args:
        bundle: A bundle that was read, so that it is whole.
        device: Its target.
        path: The file of the private key, in PEM.

    Raises:
        MissingTool: What signs is not installed.
        UserError: The key cannot be read (E0603), is none (E1366) or another than the program
            asks for (E1368), or the program asks for no signature (E1367).
    """
    content = _read_key(path)
    signing_key.require_package()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(content, None)
    except Exception as error:  # what it raises of a kind that it lacks is no ValueError
        raise _build_key_error(
            path, "private", (str(error).splitlines() or [""])[0][:160]
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _build_key_error(path, "private", "it is of another kind")
    required = device.read_runner_signature(bundle.model)
    if required is None:
        message = "the program of this bundle asks for no signature"
        help = "build it with `--require-signature PUBLIC.pem`; `--key` signs any bundle"
        raise fail("E1367", message, make_file_span(str(bundle.folder)), help=help)
    if key.public_key().public_bytes_raw() != required.public_key:
        message = "the program of this bundle asks for a signature by another key"
        label = f"its public key is {next(bundle.model.glob('*-run.pem')).name}"
        help = "give the private key that belongs to it, or build with the public part of this one"
        raise fail("E1368", message, make_file_span(str(path)), label=label, help=help)
    return required, key.sign(required.message)


def store_signature(bundle: Bundle, required: RunnerSignature, signature: bytes) -> Path:
    """Write a signature beside the program of a bundle, as a file of it; return its path.

    A signature of the whole bundle, which was of the files before, is removed.

    Raises:
        UserError: The folder cannot be written, or another bundle took its place (E0622).
    """
    points = bundle.manifest.operating_points
    updated_bundle = bundle_folder.rewrite_bundle(bundle, points, {required.file: signature})
    return updated_bundle.model / required.file


def require_signed(bundle: Bundle, device: Device) -> None:
    """Refuse a bundle whose program asks for a signature that it does not have.

    Raises:
        MissingTool: What verifies is not installed.
        UserError: There is none, or it does not hold (E1369).
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
        message = "the program of this bundle would not start: it is not signed"
        help = "add `--runner-key PRIVATE.pem`"
        raise fail("E1369", message, make_file_span(str(path)), help=help) from None


def _read_key(path: Path) -> bytes:
    return regular_files.read_file(path, "read the key", ed25519_pem.MAX_BYTES + 1)


def _build_key_error(path: Path, kind: str, label: str) -> UserError:
    message = f"this is no {kind} Ed25519 key in PEM"
    help = "docs/security.md has the two commands that make a private key and its public part"
    return fail("E1366", message, make_file_span(str(path)), label=label, help=help)
