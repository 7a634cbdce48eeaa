"""Signed bundles that are tampered with, downgraded or swapped, and lists of trusted keys.

What is asked for is known beforehand: a case is wrong where a bundle runs that should be refused,
or is refused though it holds. A signature that is edited counts as the same one where its payload
and bytes are. `signed_reads.py` tries many more, without a process for each.
"""

import atexit
import base64
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

from bundle_changes import VALUES
from bundles import IMAGE, templates
from case import Case, Front, Outcome
from own_places import PLACES

from tcc.compiler.zoo.shipped import samples_folder

NETWORK = "tiny"
BUNDLES = ("tiny-onnxruntime-fp32", "tiny-onnxruntime-int8")
RELEASES = (1, 2, 3)
KEYS = ("maker", "other")
SIGNED = tuple((key, release) for key in KEYS for release in RELEASES)
PAST, AHEAD = "2020-01-31", "9999-12-31"


@dataclass(frozen=True, slots=True)
class Trust:
    """What a case's user trusts the maker's key for, and what he has seen."""

    networks: tuple[str, ...] | None  # None: the key is not trusted at all
    expires: str | None = None
    min_release: int = 0
    revoked: bool = False
    require: bool = False
    seen: int = 0
    damage: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as `trust.json` has it."""
        pem, fingerprint = keys()["maker"]
        entry = {
            "fingerprint": fingerprint,
            "pem": pem,
            "networks": list(self.networks or ()),
            "expires": self.expires,
            "min_release": self.min_release,
        }
        return {
            "tcc_trust": 1,
            "require": self.require,
            "keys": [] if self.networks is None else [entry],
            "revoked": [fingerprint] if self.revoked else [],
            "folders": [],
        }

    def takes(self, key: str, release: int, asked: "Request") -> bool:
        """Whether a bundle of the network, as a key signed it, is to run."""
        if asked.key not in {"", key} or (key == "maker" and self.revoked):
            return False
        if key == "other" or self.networks is None:
            seen = self.seen if key == "maker" else 0
            unknown = asked.own_word and not self.require
            return release >= seen if asked.key else unknown
        named = not self.networks or NETWORK in self.networks
        return named and self.expires != PAST and release >= max(self.seen, self.min_release)


@dataclass(frozen=True, slots=True)
class Request:
    """What a command line says: the key that is typed, and whether the user vouches."""

    key: str
    own_word: bool

    @classmethod
    def of(cls, words: tuple[str, ...]) -> "Request":
        """Return what words say."""
        key = words[words.index("--key") + 1].partition(".")[0] if "--key" in words else ""
        return cls(key, "--trust" in words)


@cache
def place() -> Path:
    """Return a folder with the keys and every signature, made once."""
    from tcc.compiler.bundle import bundle_folder, signature
    from tcc.compiler.cli import devices

    folder = Path(tempfile.mkdtemp(prefix="signatures-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in KEYS:
        _write_key(folder / f"{name}.pem")
    for bundle in BUNDLES:
        copy = folder / bundle
        shutil.copytree(templates() / bundle, copy)
        whole = bundle_folder.read(copy, devices.precision, None)
        for key in KEYS:
            for release in RELEASES:
                path, _ = signature.sign(whole, folder / f"{key}.pem", release)
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
def keys() -> Mapping[str, tuple[str, str]]:
    """Return the PEM and the fingerprint of each public key."""
    pems = {name: (place() / f"{name}.pub").read_text() for name in KEYS}
    return {n: (pem, hashlib.sha256(pem.encode()).hexdigest()) for n, pem in pems.items()}


def _signature(bundle: str, key: str, release: int) -> bytes:
    return (place() / f"{bundle}-{key}-{release}.sig").read_bytes()


def _same(one: bytes, other: bytes) -> bool:
    """Whether two signatures say the same, however it is written."""
    try:
        first, second = (json.loads(data) for data in (one, other))
        found = []
        for plain in (first, second):
            (signed,) = plain["dsseEnvelope"]["signatures"]
            payload = base64.b64decode(plain["dsseEnvelope"]["payload"])
            found.append((payload, base64.b64decode(signed["sig"])))
        return found[0] == found[1]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


# What is done to a bundle's folder and its signature.
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
    from tcc.compiler.support import sealed_json

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
    about["seal"] = sealed_json.seal(about)
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
    data = _signature(bundle, numbers.choice(KEYS), numbers.choice(RELEASES))
    (folder / "model.sig").write_bytes(data)


def _swap_content(folder: Path, _: Random) -> None:
    """Take another bundle's files under this signature."""
    signed = (folder / "model.sig").read_bytes()
    wanted = json.loads((folder / "manifest.json").read_text())["precision"]
    other = next(name for name in BUNDLES if not name.endswith(wanted))
    shutil.rmtree(folder)
    _write(other, folder)
    (folder / "model.sig").write_bytes(signed)


def _write(bundle: str, folder: Path) -> None:
    for name, content in _files(bundle).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _places(data: Any) -> list[tuple[Any, Any]]:
    named: Any = ()
    if isinstance(data, dict):
        named = list(data)
    elif isinstance(data, list):
        named = range(len(data))
    return [pair for key in named for pair in ((data, key), *_places(data[key]))]


def _edit_signature(folder: Path, numbers: Random) -> None:
    """Change a field of the envelope, or of the payload in it."""
    path = folder / "model.sig"
    plain = json.loads(path.read_text())
    inner = numbers.random() < 0.5
    target = json.loads(base64.b64decode(plain["dsseEnvelope"]["payload"])) if inner else plain
    home, key = numbers.choice(_places(target))
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
DAMAGES = (*[""] * 17, "open", "text", "field")
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("show", "b"), ("show", "b"), ("show", "b"), ("show", "b", "-o", "graph.txt"),
    ("run", "b", IMAGE), ("run", "b", IMAGE, "--trust"),
    ("verify", "b"), ("verify", "b", "--trust"),
)  # fmt: skip


def _make(numbers: Random) -> Case:
    bundle = numbers.choice(BUNDLES)
    trust = Trust(
        numbers.choice(((), (), (NETWORK,), (NETWORK,), (NETWORK, "x"), ("x",), None)),
        numbers.choice((None, None, None, None, AHEAD, PAST)),
        numbers.choice((0, 0, 0, 0, 1, 2, 3)),
        numbers.random() < 0.07,
        numbers.random() < 0.15,
        numbers.choice((0, 0, 0, 1, 2, 3)),
        numbers.choice(DAMAGES),
    )
    words = numbers.choice(COMMANDS)
    if words[0] == "verify" and numbers.random() < 0.4:
        words = (*words, "--key", numbers.choice(("maker.pub", "maker.pub", "other.pub")))
    key = numbers.choice(("maker", "maker", "maker", "other"))
    change = numbers.choices([c for c, _ in CHANGES], [often for _, often in CHANGES])[0]
    prepare = partial(
        _prepared, bundle, (key, numbers.choice(RELEASES)), trust, change, numbers.getrandbits(64)
    )
    image = (samples_folder() / "TUM/1.png").read_bytes()
    return Case(words, {IMAGE: image}, prepare, partial(_checked, trust, words))


def _prepared(
    bundle: str,
    signed: tuple[str, int],
    trust: Trust,
    change: Callable[[Path, Random], None],
    seed: int,
    folder: Path,
) -> None:
    _write(bundle, folder / "b")
    (folder / "b/model.sig").write_bytes(_signature(bundle, *signed))
    change(folder / "b", Random(seed))
    for name in KEYS:
        shutil.copy(place() / f"{name}.pub", folder)
    config = folder / "xdg_config_home/tcc"
    config.mkdir(parents=True)
    document = trust.document()
    if trust.damage == "field":
        home, key = Random(seed).choice(_places(document))
        home[key] = {"wrong": object.__name__}
    (config / "trust.json").write_text("{" if trust.damage == "text" else json.dumps(document))
    if trust.damage == "open":
        Random(seed).choice((config, config.parent, config / "trust.json")).chmod(0o777)
    if trust.seen:
        digest = hashlib.sha256(f"{keys()['maker'][1]}\0{NETWORK}".encode()).hexdigest()[:40]
        seen = folder / "xdg_state_home/tcc/releases" / digest
        seen.mkdir(parents=True)
        (seen / str(trust.seen)).touch()
    PLACES.set(folder, "XDG_CONFIG_HOME", "XDG_STATE_HOME")


def _checked(trust: Trust, words: tuple[str, ...], outcome: Outcome, folder: Path) -> str:
    answer = wanted(trust, Request.of(words), folder / "b")
    if answer is False and outcome.code == 0:
        return "ran what should be refused"
    if answer is True and outcome.code:
        return "refused what holds"
    return ""


def wanted(trust: Trust, asked: Request, folder: Path) -> bool | None:
    """Return whether a bundle is to run; None where both is an answer."""
    path = folder / "model.sig"
    if not os.path.lexists(path):
        named = NETWORK in (trust.networks or ()) and not asked.own_word
        return False if trust.require or trust.damage or named or asked.key else None
    contents = [name for name in BUNDLES if _intact(name, folder)]
    if trust.damage or not contents or not path.is_file():
        return False
    data, content = path.read_bytes(), contents[0]
    known = _fingerprint(data) == keys()["maker"][1] and (
        trust.revoked or trust.networks is not None
    )
    lax = asked.own_word and not asked.key and not trust.require and not known
    signed = [each for each in SIGNED if _same(data, _signature(content, *each))]
    if not signed:
        return None if lax else False
    takes = trust.takes(*signed[0], asked)
    if data == _signature(content, *signed[0]) and not path.is_symlink():
        return takes
    # Edited around what is signed: it may be refused, and need not be where its key is hidden.
    return None if takes or lax else False


def _fingerprint(data: bytes) -> str:
    """Return the key that an envelope names, if it names one."""
    try:
        return str(json.loads(data)["verificationMaterial"]["publicKey"]["hint"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


@cache
def _files(bundle: str) -> Mapping[str, bytes]:
    """Return the files of a bundle that nobody changed."""
    folder = templates() / bundle
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _intact(bundle: str, folder: Path) -> bool:
    """Whether a folder holds what a bundle has, to the byte, and no more but a signature."""
    there = {p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    names = {p.relative_to(folder).as_posix() for p in there} - {"model.sig"}
    return names == _files(bundle).keys() and all(
        not (folder / name).is_symlink() and (folder / name).read_bytes() == content
        for name, content in _files(bundle).items()
    )


def _warm() -> None:
    place()
    keys()


SIGNATURES = Front("signatures", 500, _make, _warm)
