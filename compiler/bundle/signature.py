"""Signing bundles: a file beside what it signs, so that a bundle has the same bytes unsigned."""

from pathlib import Path

from tcc.compiler.bundle import signed_files, signing_key
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.signed_files import NAME, SignedFiles
from tcc.compiler.bundle.signing_key import PublicKey
from tcc.compiler.support import atomic_files, regular_files
from tcc.compiler.support.diagnostics import fail, whole_file


def sign(bundle: Bundle, key: Path, release: int) -> tuple[Path, PublicKey]:
    """Sign a bundle; return the signature's file, which replaces an older one, and the key.

    Args:
        bundle: A bundle that was read, so that it is whole.
        key: The file of a private key of an elliptic curve, in PEM.
        release: The number of the release of its network.

    Raises:
        MissingTool: What signs is not installed.
        UserError: It is no such key (E1353), the folder holds a link (E1352), or the signature
            cannot be written.
    """
    folder = bundle.folder
    names = sorted(regular_files.walk_files(folder) - {NAME})
    for name in names:
        if (folder / name).is_symlink():
            message = "a link cannot be signed: it may lead elsewhere later"
            raise fail("E1352", message, whole_file(str(folder / name)), help="remove it")
    digests = {name: regular_files.hash_file(folder / name) for name in names}
    signed = SignedFiles(digests, bundle.manifest.model.name, release)
    payload = signed_files.payload(folder.resolve().name, signed)
    signature, public = signing_key.sign(key, signed_files.message(payload))
    content = signed_files.encode(payload, signature, public.fingerprint)
    atomic_files.write_file(folder / NAME, content)
    return folder / NAME, public
