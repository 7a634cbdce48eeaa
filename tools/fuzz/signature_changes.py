"""What is done to a signed bundle: to its files, its manifest, and its signature."""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from bundle_changes import VALUES
from signed_templates import BUNDLES, KEYS, RELEASES, signature_of, write


def _keep(_: Path, __: Random) -> None:
    """Leave all as it is."""


def _strip(folder: Path, _: Random) -> None:
    (folder / "model.sig").unlink()


def _flip(folder: Path, numbers: Random) -> None:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "model.sig")
    path = numbers.choice(paths)
    data = bytearray(path.read_bytes() or b"\0")
    data[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)
    path.write_bytes(data)


def _edit_manifest(folder: Path, numbers: Random) -> None:
    """Change what the manifest says, and seal it again."""
    from tcc.compiler.support import json_records

    path = folder / "manifest.json"
    about = json.loads(path.read_text())
    labels = about["outputs"][0]["labels"]
    match numbers.choice(("labels", "labels", "name", "preprocess", "file")):
        case "labels":
            numbers.shuffle(labels)
            about["outputs"][0]["labels"] = labels[1:] + labels[:1]
        case "name":
            about["model"]["name"] = numbers.choice(("other", "tiny2", "t"))
        case "preprocess":
            about["input"]["preprocess"]["mean"] = [0.1, 0.2, numbers.random()]
        case _:
            file = numbers.choice(about["files"])
            data = numbers.randbytes(20)
            (folder / file["path"]).write_bytes(data)
            file["bytes"], file["sha256"] = len(data), hashlib.sha256(data).hexdigest()
    about["seal"] = json_records.seal(about)
    path.write_text(json.dumps(about, indent=2))


def _reformat_manifest(folder: Path, _: Random) -> None:
    """Write the same manifest otherwise: what it says stays, and its bytes do not."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))


def _add(folder: Path, numbers: Random) -> None:
    name = numbers.choice(("more", "goldens/more.txt", "graph/x", ".hidden", "model.sig.old"))
    (folder / name).write_bytes(numbers.randbytes(3))


def _remove(folder: Path, numbers: Random) -> None:
    numbers.choice(sorted(p for p in folder.rglob("*") if p.is_file())).unlink()


def _link(folder: Path, numbers: Random) -> None:
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    path = numbers.choice(paths)
    aside = folder.parent / "aside"
    path.rename(aside)
    path.symlink_to(numbers.choice((aside, numbers.choice(paths), "/dev/zero", "nowhere")))


def _swap(folder: Path, numbers: Random) -> None:
    """Take another signature: of another bundle, key or release."""
    bundle = numbers.choice(BUNDLES)
    data = signature_of(bundle, numbers.choice(KEYS), numbers.choice(RELEASES))
    (folder / "model.sig").write_bytes(data)


def _swap_content(folder: Path, _: Random) -> None:
    """Take another bundle's files under this signature."""
    signed = (folder / "model.sig").read_bytes()
    wanted = json.loads((folder / "manifest.json").read_text())["precision"]
    other = next(name for name in BUNDLES if not name.endswith(wanted))
    shutil.rmtree(folder)
    write(other, folder)
    (folder / "model.sig").write_bytes(signed)


def places(data: Any) -> list[tuple[Any, Any]]:
    """Return each container with each of its keys or indices."""
    named: Any = ()
    if isinstance(data, dict):
        named = list(data)
    elif isinstance(data, list):
        named = range(len(data))
    return [pair for key in named for pair in ((data, key), *places(data[key]))]


def _edit_signature(folder: Path, numbers: Random) -> None:
    """Change a field of the envelope, or of the payload in it."""
    path = folder / "model.sig"
    plain = json.loads(path.read_text())
    inner = numbers.random() < 0.5
    target = json.loads(base64.b64decode(plain["dsseEnvelope"]["payload"])) if inner else plain
    home, key = numbers.choice(places(target))
    if numbers.random() < 0.3:
        del home[key]
    else:
        home[key] = numbers.choice(VALUES)
    if inner:
        payload = json.dumps(target).encode()
        plain["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    path.write_text(json.dumps(plain))


def _follow(folder: Path, numbers: Random) -> None:
    """Change a file, and the payload as it would be, without a key."""
    _flip(folder, numbers)
    path = folder / "model.sig"
    plain = json.loads(path.read_text())
    target = json.loads(base64.b64decode(plain["dsseEnvelope"]["payload"]))
    resources = target["predicate"]["resources"]
    for each in resources:
        each["digest"] = hashlib.sha256((folder / each["name"]).read_bytes()).hexdigest()
    root = b"".join(bytes.fromhex(each["digest"]) for each in resources)
    target["subject"][0]["digest"]["sha256"] = hashlib.sha256(root).hexdigest()
    target["predicate"]["release"]["number"] = numbers.choice((0, 1, 9))
    payload = json.dumps(target).encode()
    plain["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    path.write_text(json.dumps(plain))


def _spoil_signature(folder: Path, numbers: Random) -> None:
    path = folder / "model.sig"
    data = bytearray(path.read_bytes())
    match numbers.choice(("flip", "cut", "random", "empty", "deep", "folder")):
        case "flip":
            data[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)
        case "cut":
            del data[numbers.randrange(len(data)) :]
        case "random":
            data[:] = numbers.randbytes(numbers.randrange(1, 4000))
        case "empty":
            data.clear()
        case "deep":
            data[:] = b"[" * 99_999
        case _:
            path.unlink()
            path.mkdir()
            return
    path.write_bytes(data)


CHANGES: tuple[tuple[Callable[[Path, Random], None], int], ...] = (
    (_keep, 9), (_strip, 3), (_flip, 3), (_edit_manifest, 5), (_reformat_manifest, 1), (_add, 2),
    (_remove, 2), (_link, 2), (_swap, 5), (_swap_content, 2), (_edit_signature, 6), (_follow, 3),
    (_spoil_signature, 4),
)  # fmt: skip
