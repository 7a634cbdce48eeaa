"""Fuzz signed bundles that are changed, downgraded or swapped, and lists of trusted keys.

The expected answer is known. A case fails if a bundle runs that should be refused, or if a valid
one is refused. An edited signature counts as the same if its payload and signature bytes are.
`signed_reads.py` tries many more cases without a process for each.
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
from own_places import CASE_FOLDERS
from signature_changes import CHANGES, list_locations
from signed_templates import (
    BUNDLES,
    KEYS,
    NETWORK,
    RELEASES,
    SIGNED,
    build_signatures,
    read_bundle_files,
    read_public_keys,
    read_signature,
    write_bundle,
)

from tcc.compiler.zoo.shipped import get_samples_folder

PAST, AHEAD = "2020-01-31", "9999-12-31"


@dataclass(frozen=True, slots=True)
class Trust:
    """What a user trusts the maker's key for, and the releases that he has seen."""

    networks: tuple[str, ...] | None  # None: the key is not trusted at all
    expires: str | None = None
    min_release: int = 0
    revoked: bool = False
    require: bool = False
    seen_release: int = 0
    damage: str = ""

    def to_document(self) -> dict[str, Any]:
        """Return the content of `trust.json`."""
        pem, fingerprint = read_public_keys()["maker"]
        key_entry = {
            "fingerprint": fingerprint,
            "pem": pem,
            "networks": list(self.networks or ()),
            "expires": self.expires,
            "min_release": self.min_release,
        }
        return {
            "tcc_trust": 1,
            "require": self.require,
            "keys": [] if self.networks is None else [key_entry],
            "revoked": [fingerprint] if self.revoked else [],
            "folders": [],
        }

    def is_accepted(self, key: str, release: int, request: "Request") -> bool:
        """Whether a bundle of the network with a key's signature may run."""
        if request.key not in {"", key} or (key == "maker" and self.revoked):
            return False
        if key == "other" or self.networks is None:
            min_seen = self.seen_release if key == "maker" else 0
            accepts_unknown = request.has_trust_option and not self.require
            return release >= min_seen if request.key else accepts_unknown
        is_named_network = not self.networks or NETWORK in self.networks
        return (
            is_named_network
            and self.expires != PAST
            and release >= max(self.seen_release, self.min_release)
        )


@dataclass(frozen=True, slots=True)
class Request:
    """The key that the command line names, and whether it has `--trust`."""

    key: str
    has_trust_option: bool

    @classmethod
    def from_arguments(cls, arguments: tuple[str, ...]) -> "Request":
        """Return the request of a command line."""
        key = (
            arguments[arguments.index("--key") + 1].partition(".")[0]
            if "--key" in arguments
            else ""
        )
        return cls(key, "--trust" in arguments)


def _is_same_signature(signature: bytes, other_signature: bytes) -> bool:
    """Return whether two signatures have the same payload and bytes, in any formatting."""
    try:
        envelope, other_envelope = (
            json.loads(signature_bytes) for signature_bytes in (signature, other_signature)
        )
        signed_payloads = []
        for parsed in (envelope, other_envelope):
            (signed,) = parsed["dsseEnvelope"]["signatures"]
            payload = base64.b64decode(parsed["dsseEnvelope"]["payload"])
            signed_payloads.append((payload, base64.b64decode(signed["sig"])))
        return signed_payloads[0] == signed_payloads[1]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


DAMAGES = (*[""] * 17, "open", "text", "field")
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("show", "b"), ("show", "b"), ("show", "b"), ("show", "b", "-o", "graph.txt"),
    ("run", "b", IMAGE), ("run", "b", IMAGE, "--trust"),
    ("verify", "b"), ("verify", "b", "--trust"),
)  # fmt: skip


def _make_case(numbers: Random) -> Case:
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
    arguments = numbers.choice(COMMANDS)
    if arguments[0] == "verify" and numbers.random() < 0.4:
        arguments = (*arguments, "--key", numbers.choice(("maker.pub", "maker.pub", "other.pub")))
    key = numbers.choice(("maker", "maker", "maker", "other"))
    change = numbers.choices([c for c, _ in CHANGES], [weight for _, weight in CHANGES])[0]
    prepare = partial(
        _prepare_case,
        bundle,
        (key, numbers.choice(RELEASES)),
        trust,
        change,
        numbers.getrandbits(64),
    )
    image = (get_samples_folder() / "TUM/1.png").read_bytes()
    return Case(arguments, {IMAGE: image}, prepare, partial(_check_answer, trust, arguments))


def _prepare_case(
    bundle: str,
    signed: tuple[str, int],
    trust: Trust,
    change: Callable[[Path, Random], None],
    seed: int,
    folder: Path,
) -> None:
    write_bundle(bundle, folder / "b")
    (folder / "b/model.sig").write_bytes(read_signature(bundle, *signed))
    change(folder / "b", Random(seed))
    for name in KEYS:
        shutil.copy(build_signatures() / f"{name}.pub", folder)
    config = folder / "xdg_config_home/tcc"
    config.mkdir(parents=True)
    document = trust.to_document()
    if trust.damage == "field":
        container, key = Random(seed).choice(list_locations(document))
        container[key] = {"wrong": object.__name__}
    (config / "trust.json").write_text("{" if trust.damage == "text" else json.dumps(document))
    if trust.damage == "open":
        Random(seed).choice((config, config.parent, config / "trust.json")).chmod(0o777)
    if trust.seen_release:
        digest = hashlib.sha256(
            f"{read_public_keys()['maker'][1]}\0{NETWORK}".encode()
        ).hexdigest()[:40]
        release_folder = folder / "xdg_state_home/tcc/releases" / digest
        release_folder.mkdir(parents=True)
        (release_folder / str(trust.seen_release)).touch()
    CASE_FOLDERS.set(folder, "XDG_CONFIG_HOME", "XDG_STATE_HOME")


def _check_answer(trust: Trust, arguments: tuple[str, ...], outcome: Outcome, folder: Path) -> str:
    answer = evaluate_trust(trust, Request.from_arguments(arguments), folder / "b")
    if answer is False and outcome.code == 0:
        return "a bundle ran that should be refused"
    if answer is True and outcome.code:
        return "a valid bundle was refused"
    return ""


def evaluate_trust(trust: Trust, request: Request, folder: Path) -> bool | None:
    """Return whether a bundle may run; None if both answers are allowed."""
    path = folder / "model.sig"
    if not os.path.lexists(path):
        is_named_network = NETWORK in (trust.networks or ()) and not request.has_trust_option
        return False if trust.require or trust.damage or is_named_network or request.key else None
    contents = [name for name in BUNDLES if _is_intact(name, folder)]
    if trust.damage or not contents or not path.is_file():
        return False
    signature, content = path.read_bytes(), contents[0]
    is_known_key = _read_fingerprint(signature) == read_public_keys()["maker"][1] and (
        trust.revoked or trust.networks is not None
    )
    lax = request.has_trust_option and not request.key and not trust.require and not is_known_key
    signed = [
        key_and_release
        for key_and_release in SIGNED
        if _is_same_signature(signature, read_signature(content, *key_and_release))
    ]
    if not signed:
        return None if lax else False
    is_accepted = trust.is_accepted(*signed[0], request)
    if signature == read_signature(content, *signed[0]) and not path.is_symlink():
        return is_accepted
    # Only unsigned parts are edited: both answers are allowed if the original may run, or if
    # its key is hidden and the user passes --trust.
    return None if is_accepted or lax else False


def _read_fingerprint(signature: bytes) -> str:
    """Return the key fingerprint that an envelope names, or an empty string."""
    try:
        return str(json.loads(signature)["verificationMaterial"]["publicKey"]["hint"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _is_intact(bundle: str, folder: Path) -> bool:
    """Return whether a folder has exactly a bundle's files and bytes, except the signature."""
    file_paths = {p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    names = {p.relative_to(folder).as_posix() for p in file_paths} - {"model.sig"}
    return names == read_bundle_files(bundle).keys() and all(
        not (folder / name).is_symlink() and (folder / name).read_bytes() == content
        for name, content in read_bundle_files(bundle).items()
    )


def _prepare() -> None:
    build_signatures()
    read_public_keys()


SIGNATURES = Front("signatures", 500, _make_case, _prepare)
