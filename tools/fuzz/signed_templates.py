"""Sign bundles once, with two keys and at three releases, for use by the cases."""

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from bundles import build_templates

NETWORK = "tiny"
BUNDLES = ("tiny-onnxruntime-fp32", "tiny-onnxruntime-int8")
RELEASES = (1, 2, 3)
KEYS = ("maker", "other")
SIGNED = tuple((key, release) for key in KEYS for release in RELEASES)


@cache
def build_signatures() -> Path:
    """Return a folder with the keys and every signature; it is created once."""
    from tcc.compiler.bundle import bundle_folder, signed_files
    from tcc.compiler.targets import devices

    folder = Path(tempfile.mkdtemp(prefix="signatures-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in KEYS:
        _write_key(folder / f"{name}.pem")
    for bundle in BUNDLES:
        copy = folder / bundle
        shutil.copytree(build_templates() / bundle, copy)
        loaded_bundle = bundle_folder.read_bundle(copy, devices.find_precision, None)
        for key in KEYS:
            for release in RELEASES:
                path, _ = signed_files.sign_bundle(
                    loaded_bundle.folder,
                    loaded_bundle.manifest.model.name,
                    folder / f"{key}.pem",
                    release,
                )
                path.rename(folder / f"{bundle}-{key}-{release}.sig")
    return folder


def _write_key(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)


@cache
def read_public_keys() -> Mapping[str, tuple[str, str]]:
    """Return the PEM and the fingerprint of each public key."""
    pems = {name: (build_signatures() / f"{name}.pub").read_text() for name in KEYS}
    return {n: (pem, hashlib.sha256(pem.encode()).hexdigest()) for n, pem in pems.items()}


def read_signature(bundle: str, key: str, release: int) -> bytes:
    """Return the `model.sig` of a bundle."""
    return (build_signatures() / f"{bundle}-{key}-{release}.sig").read_bytes()


@cache
def read_bundle_files(bundle: str) -> Mapping[str, bytes]:
    """Return the files of an unchanged bundle."""
    folder = build_templates() / bundle
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_bundle(bundle: str, folder: Path) -> None:
    """Write the files of an unchanged bundle."""
    for name, content in read_bundle_files(bundle).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
