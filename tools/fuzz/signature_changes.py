"""Change a signed bundle: its files, its manifest and its signature."""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from bundle_changes import ODD_VALUES
from signed_templates import BUNDLES, KEYS, RELEASES, read_signature, write_bundle


def _keep(_: Path, __: Random) -> None:
    """Change nothing."""


def _strip(folder: Path, _: Random) -> None:
    (folder / "model.sig").unlink()


def _replace_bit(folder: Path, numbers: Random) -> None:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "model.sig")
    path = numbers.choice(paths)
    content = bytearray(path.read_bytes() or b"\0")
    content[numbers.randrange(len(content))] ^= 1 << numbers.randrange(8)
    path.write_bytes(content)


def _replace_manifest_field(folder: Path, numbers: Random) -> None:
    """Change a field of the manifest, and renew the seal."""
    from tcc.compiler.support import json_records

    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    labels = manifest["outputs"][0]["labels"]
    match numbers.choice(("labels", "labels", "name", "preprocess", "file")):
        case "labels":
            numbers.shuffle(labels)
            manifest["outputs"][0]["labels"] = labels[1:] + labels[:1]
        case "name":
            manifest["model"]["name"] = numbers.choice(("other", "tiny2", "t"))
        case "preprocess":
            manifest["input"]["preprocess"]["mean"] = [0.1, 0.2, numbers.random()]
        case _:
            file = numbers.choice(manifest["files"])
            content = numbers.randbytes(20)
            (folder / file["path"]).write_bytes(content)
            file["bytes"], file["sha256"] = len(content), hashlib.sha256(content).hexdigest()
    manifest["seal"] = json_records.seal(manifest)
    path.write_text(json.dumps(manifest, indent=2))


def _format_manifest(folder: Path, _: Random) -> None:
    """Format the manifest differently: its content does not change, but its bytes do."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))


def _add_file(folder: Path, numbers: Random) -> None:
    name = numbers.choice(("more", "goldens/more.txt", "graph/x", ".hidden", "model.sig.old"))
    (folder / name).write_bytes(numbers.randbytes(3))


def _remove_file(folder: Path, numbers: Random) -> None:
    numbers.choice(sorted(p for p in folder.rglob("*") if p.is_file())).unlink()


def _link_file(folder: Path, numbers: Random) -> None:
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    path = numbers.choice(paths)
    moved_path = folder.parent / "aside"
    path.rename(moved_path)
    path.symlink_to(numbers.choice((moved_path, numbers.choice(paths), "/dev/zero", "nowhere")))


def _swap_signature(folder: Path, numbers: Random) -> None:
    """Replace the signature with one of another bundle, key or release."""
    bundle = numbers.choice(BUNDLES)
    signature = read_signature(bundle, numbers.choice(KEYS), numbers.choice(RELEASES))
    (folder / "model.sig").write_bytes(signature)


def _swap_content(folder: Path, _: Random) -> None:
    """Replace the files with another bundle's, and keep the signature."""
    signed = (folder / "model.sig").read_bytes()
    precision = json.loads((folder / "manifest.json").read_text())["precision"]
    other_bundle = next(name for name in BUNDLES if not name.endswith(precision))
    shutil.rmtree(folder)
    write_bundle(other_bundle, folder)
    (folder / "model.sig").write_bytes(signed)


def list_locations(node: Any) -> list[tuple[Any, Any]]:
    """Return each container with each of its keys or indices."""
    node_keys: Any = ()
    if isinstance(node, dict):
        node_keys = list(node)
    elif isinstance(node, list):
        node_keys = range(len(node))
    return [pair for key in node_keys for pair in ((node, key), *list_locations(node[key]))]


def _replace_signature_field(folder: Path, numbers: Random) -> None:
    """Change a field of the envelope, or of the payload in it."""
    path = folder / "model.sig"
    envelope = json.loads(path.read_text())
    inner = numbers.random() < 0.5
    target = (
        json.loads(base64.b64decode(envelope["dsseEnvelope"]["payload"])) if inner else envelope
    )
    container, key = numbers.choice(list_locations(target))
    if numbers.random() < 0.3:
        del container[key]
    else:
        container[key] = numbers.choice(ODD_VALUES)
    if inner:
        payload = json.dumps(target).encode()
        envelope["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    path.write_text(json.dumps(envelope))


def _update_payload(folder: Path, numbers: Random) -> None:
    """Change a file and update the payload, without the key to sign it."""
    _replace_bit(folder, numbers)
    path = folder / "model.sig"
    envelope = json.loads(path.read_text())
    target = json.loads(base64.b64decode(envelope["dsseEnvelope"]["payload"]))
    resources = target["predicate"]["resources"]
    for resource in resources:
        resource["digest"] = hashlib.sha256((folder / resource["name"]).read_bytes()).hexdigest()
    root = b"".join(bytes.fromhex(resource["digest"]) for resource in resources)
    target["subject"][0]["digest"]["sha256"] = hashlib.sha256(root).hexdigest()
    target["predicate"]["release"]["number"] = numbers.choice((0, 1, 9))
    payload = json.dumps(target).encode()
    envelope["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    path.write_text(json.dumps(envelope))


def _replace_signature_bytes(folder: Path, numbers: Random) -> None:
    path = folder / "model.sig"
    content = bytearray(path.read_bytes())
    match numbers.choice(("flip", "cut", "random", "empty", "deep", "folder")):
        case "flip":
            content[numbers.randrange(len(content))] ^= 1 << numbers.randrange(8)
        case "cut":
            del content[numbers.randrange(len(content)) :]
        case "random":
            content[:] = numbers.randbytes(numbers.randrange(1, 4000))
        case "empty":
            content.clear()
        case "deep":
            content[:] = b"[" * 99_999
        case _:
            path.unlink()
            path.mkdir()
            return
    path.write_bytes(content)


CHANGES: tuple[tuple[Callable[[Path, Random], None], int], ...] = (
    (_keep, 9),
    (_strip, 3),
    (_replace_bit, 3),
    (_replace_manifest_field, 5),
    (_format_manifest, 1),
    (_add_file, 2),
    (_remove_file, 2),
    (_link_file, 2),
    (_swap_signature, 5),
    (_swap_content, 2),
    (_replace_signature_field, 6),
    (_update_payload, 3),
    (_replace_signature_bytes, 4),
)
