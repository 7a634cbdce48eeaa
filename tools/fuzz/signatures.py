"""Signed bundles that are tampered with, downgraded or swapped, and lists of trusted keys.

What is asked for is known beforehand: a case is wrong where a bundle runs that should be refused,
or is refused though it holds. A signature that is edited counts as the same one where its payload
and bytes are. `signed_reads.py` tries many more, without a process for each.
"""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from bundles import IMAGE
from case import Case, Front, Outcome
from own_places import PLACES
from signature_changes import CHANGES, places
from signed_templates import (
    BUNDLES,
    KEYS,
    NETWORK,
    RELEASES,
    SIGNED,
    files,
    keys,
    place,
    signature_of,
    write,
)

from tcc.compiler.zoo.shipped import get_samples_folder

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
    image = (get_samples_folder() / "TUM/1.png").read_bytes()
    return Case(words, {IMAGE: image}, prepare, partial(_checked, trust, words))


def _prepared(
    bundle: str,
    signed: tuple[str, int],
    trust: Trust,
    change: Callable[[Path, Random], None],
    seed: int,
    folder: Path,
) -> None:
    write(bundle, folder / "b")
    (folder / "b/model.sig").write_bytes(signature_of(bundle, *signed))
    change(folder / "b", Random(seed))
    for name in KEYS:
        shutil.copy(place() / f"{name}.pub", folder)
    config = folder / "xdg_config_home/tcc"
    config.mkdir(parents=True)
    document = trust.document()
    if trust.damage == "field":
        home, key = Random(seed).choice(places(document))
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
    signed = [each for each in SIGNED if _same(data, signature_of(content, *each))]
    if not signed:
        return None if lax else False
    takes = trust.takes(*signed[0], asked)
    if data == signature_of(content, *signed[0]) and not path.is_symlink():
        return takes
    # Edited around what is signed: it may be refused, and need not be where its key is hidden.
    return None if takes or lax else False


def _fingerprint(data: bytes) -> str:
    """Return the key that an envelope names, if it names one."""
    try:
        return str(json.loads(data)["verificationMaterial"]["publicKey"]["hint"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _intact(bundle: str, folder: Path) -> bool:
    """Whether a folder holds what a bundle has, to the byte, and no more but a signature."""
    there = {p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    names = {p.relative_to(folder).as_posix() for p in there} - {"model.sig"}
    return names == files(bundle).keys() and all(
        not (folder / name).is_symlink() and (folder / name).read_bytes() == content
        for name, content in files(bundle).items()
    )


def _warm() -> None:
    place()
    keys()


SIGNATURES = Front("signatures", 500, _make, _warm)
