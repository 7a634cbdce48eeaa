"""Signatures of bundles, in the format of the OpenSSF's model signing, by keys: offline.

`model.sig` lies in a bundle's folder beside what it signs: every other file, the manifest among
them. No hash of the bundle is of it, so that a bundle has the same bytes whoever signs it.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.bundle.bundle_folder import SIGNATURE
from tcc.compiler.support import atomic_files, regular_files, scratch_folders, user_folders
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.external_tools import MissingTool, Tool

if TYPE_CHECKING:
    from model_signing.hashing import Config

MAX_BYTES = 16 << 20
"""Largest signature that is read: a few hundred bytes for each file of a bundle."""
PACKAGE = "model-signing"


def sign(folder: Path, key: Path) -> Path:
    """Sign the bundle in a folder; return the signature's file, which replaces an older one.

    Args:
        folder: A bundle that was read, so that it is whole.
        key: The file of a private key of an elliptic curve, in PEM.

    Raises:
        MissingTool: What signs is not installed.
        UserError: It is no such key (E1353), or the signature cannot be written.
    """
    _bounded(key)
    _need()
    from model_signing import signing

    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=key)
    except Exception as error:  # one of another kind, of an old curve, with a password
        raise _no_key(key, error, "private") from error
    with scratch_folders.folder() as scratch:
        made = scratch / SIGNATURE
        signer.set_hashing_config(_hashing()).sign(folder, made)
        data = made.read_bytes()
    atomic_files.write_file(folder / SIGNATURE, data)
    return folder / SIGNATURE


def check(folder: Path, key: Path) -> None:
    """Refuse a bundle that the owner of a key did not sign as it is.

    Args:
        folder: A bundle that was read.
        key: The file of a public key of an elliptic curve, in PEM.

    Raises:
        MissingTool: What verifies is not installed.
        UserError: There is no signature (E1351), it is of another key or other files (E1352), or
            it is no key (E1353).
    """
    # The word of the user first: a key that is not there says nothing of the bundle.
    _bounded(key)
    path = folder / SIGNATURE
    if not path.is_file():
        help = "have its maker sign it: `tcc sign BUNDLE --key PRIVATE.pem`"
        raise fail("E1351", "this bundle is not signed", whole_file(str(folder)), help=help)
    _need()
    from model_signing import verifying

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:  # as above: what it raises is of no type of its own
        raise _no_key(key, error, "public") from error
    with scratch_folders.folder() as scratch:
        (copy := scratch / SIGNATURE).write_bytes(_bounded(path))
        try:
            verifier.set_hashing_config(_hashing()).verify(folder, copy)
        except Exception as error:  # a dozen types of it and of what it stands on
            label = (str(error).splitlines() or [type(error).__name__])[0][:160]
            message = "this is no signature of the bundle by that key"
            help = "take the bundle anew from its maker, and the key from where you trust it"
            raise fail("E1352", message, whole_file(str(path)), label=label, help=help) from error


def trusted_keys() -> tuple[Path, ...]:
    """Return the public keys that the user trusts: `~/.config/tcc/keys/*.pem`."""
    place = user_folders.folder("XDG_CONFIG_HOME", ".config", "keys")
    if place is None or user_folders.obstacle(place):
        return ()
    return tuple(sorted(place.glob("*.pem")))


def by_trusted_key(folder: Path) -> bool:
    """Whether a key that the user trusts signed the bundle in a folder."""
    if not (folder / SIGNATURE).is_file():
        return False
    for key in trusted_keys():
        try:
            check(folder, key)
        except (UserError, MissingTool):
            continue
        return True
    return False


def _hashing() -> "Config":
    from model_signing import hashing

    # All but itself: files of git are left out by default, and might be a bundle's.
    return hashing.Config().set_ignored_paths(paths=[Path(SIGNATURE)], ignore_git_paths=False)


def _need() -> None:
    try:
        version(PACKAGE)
    except PackageNotFoundError:
        raise MissingTool(Tool(PACKAGE, "sign bundles and to verify signatures", None)) from None


def _bounded(path: Path) -> bytes:
    try:
        with regular_files.opened(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise atomic_files.explain(error, path, "read this") from error
    if len(data) > MAX_BYTES:
        raise fail("E1352", "the file is too large", whole_file(str(path)))
    return data


def _no_key(path: Path, error: Exception, kind: str) -> UserError:
    message = f"this is no {kind} key of an elliptic curve"
    label = (str(error).splitlines() or [type(error).__name__])[0][:160]
    help = "docs/security.md has the two commands that make a private key and its public part"
    return fail("E1353", message, whole_file(str(path)), label=label, help=help)
