"""What other frameworks call things, from foreign_names.toml, and what is said of a wrong word.

Names alike do not mean alike: `elu` and `prelu` are one letter from `relu`. What users of another
framework write is looked up first, and a computation that the language lacks is called so; only a
word that is no name anywhere is taken for a misspelling.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tcc.compiler.ops import ACTIVATIONS, OPS
from tcc.compiler.support.diagnostics import nearest

TABLE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True, slots=True)
class ForeignName:
    """Names of one thing elsewhere; `ours` is the word for it here, empty if there is none.

    `write` shows it where the bare word would not do; `note` tells of differences.
    """

    names: tuple[str, ...]
    ours: str = ""
    write: str = ""
    note: str = ""

    @property
    def help(self) -> str:
        """What to do, as a diagnostic's help says it."""
        if not self.ours:
            return f"there is none: {self.note}"
        return f"write `{self.write or self.ours}`" + (f": {self.note}" if self.note else "")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The known word that a wrong one stands for, if there is one, and the help that says so."""

    ours: str = ""
    help: str = ""


@cache
def entries(kind: str) -> tuple[ForeignName, ...]:
    """Return the entries of a kind: `op`, `argument`, `key` or `value`.

    An op that is said not to be here is left out once there is a word for it.
    """
    text = TABLE.read_text().replace("{activations}", ", ".join(op.word for op in ACTIVATIONS))
    here = {folded(op.word) for op in OPS} if kind == "op" else set()
    found: list[ForeignName] = []
    for entry in tomllib.loads(text)[kind]:
        names = entry["names"].split()
        if not entry.get("ours"):
            names = [name for name in names if folded(name) not in here]
        if names:
            found.append(ForeignName(**(entry | {"names": tuple(names)})))
    return tuple(found)


@cache
def _table(kind: str) -> Mapping[str, tuple[ForeignName, ...]]:
    found: dict[str, tuple[ForeignName, ...]] = {}
    for entry in entries(kind):
        for name in dict.fromkeys(map(folded, entry.names)):
            found[name] = (*found.get(name, ()), entry)
    return found


def folded(name: str) -> str:
    """Return a name without its module's path, case, `_` and `-`."""
    # `torch.nn.Conv2d`, `nn::conv_2d` and `conv2d` are one name.
    last = name.strip().replace("::", ".").rpartition(".")[2]
    return last.replace("_", "").replace("-", "").replace(" ", "").lower()


def operation(word: str, known: tuple[str, ...]) -> Suggestion:
    """Return what a word stands for that is no op or block."""
    found = _table("op").get(folded(word))
    return Suggestion(found[0].ours, found[0].help) if found else _ours(word, known)


def argument(word: str, known: tuple[str, ...]) -> Suggestion:
    """Return what an argument or key stands for that a word lacks; `known` are those it has."""
    found = _table("argument").get(folded(word), ())
    for entry in found:
        # Only a word that this op or block has is offered; what another one has would be refused
        # again.
        if entry.ours in known:
            return Suggestion(entry.ours, entry.help)
    for entry in found:
        if not entry.ours:
            return Suggestion("", entry.note)
    # Known elsewhere and without a counterpart: a word that is merely spelt alike would mislead.
    return Suggestion() if found else _ours(word, known)


def key(word: str, known: tuple[str, ...]) -> Suggestion:
    """Return what a key stands for that a file lacks at its top."""
    found = _table("key").get(folded(word))
    if not found:
        return _ours(word, known)
    return Suggestion(found[0].ours, found[0].help if found[0].ours else found[0].note)


def value(word: str, known: tuple[str, ...]) -> Suggestion:
    """Return what a value stands for that is not among `known`."""
    found = (*_table("value").get(folded(word), ()), *_table("op").get(folded(word), ()))
    for entry in found:
        if entry.ours in known:
            note = f": {entry.note}" if entry.note else ""
            return Suggestion(entry.ours, f"write `{entry.ours}`{note}")
    for entry in found:
        if not entry.ours:
            return Suggestion("", entry.help)
    return Suggestion() if found else _ours(word, known)


def _ours(word: str, known: tuple[str, ...]) -> Suggestion:
    """Return the known word that is the same but for its case, or that one misspells."""
    # Case and underscores first: `BatchNorm` is `batch_norm`, at any distance of letters.
    for name in known:
        if folded(name) == folded(word):
            return Suggestion(name, f"write `{name}`")
    close = nearest(word, known)
    return Suggestion(close, f"did you mean `{close}`?") if close else Suggestion()
