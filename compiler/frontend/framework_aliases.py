"""What other frameworks call things, from framework_aliases.toml, and what is said of a wrong word.

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
from tcc.compiler.support.diagnostics import find_nearest_name

TABLE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True, slots=True)
class FrameworkAlias:
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
            return f"not supported: {self.note}"
        return f"write `{self.write or self.ours}`" + (f": {self.note}" if self.note else "")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The known word that a wrong one stands for, if there is one, and the help that says so."""

    known_name: str = ""
    help: str = ""


@cache
def list_aliases(kind: str) -> tuple[FrameworkAlias, ...]:
    """Return the entries of a kind: `op`, `match_argument`, `match_key` or `match_value`.

    An op that is said not to be here is left out once there is a word for it.
    """
    text = TABLE.read_text().replace("{activations}", ", ".join(op.keyword for op in ACTIVATIONS))
    existing_names = {normalize_name(op.keyword) for op in OPS} if kind == "op" else set()
    aliases: list[FrameworkAlias] = []
    for entry in tomllib.loads(text)[kind]:
        names = entry["names"].split()
        if not entry.get("ours"):
            names = [name for name in names if normalize_name(name) not in existing_names]
        if names:
            aliases.append(FrameworkAlias(**(entry | {"names": tuple(names)})))
    return tuple(aliases)


@cache
def _build_alias_table(kind: str) -> Mapping[str, tuple[FrameworkAlias, ...]]:
    aliases_by_name: dict[str, tuple[FrameworkAlias, ...]] = {}
    for alias in list_aliases(kind):
        for name in dict.fromkeys(map(normalize_name, alias.names)):
            aliases_by_name[name] = (*aliases_by_name.get(name, ()), alias)
    return aliases_by_name


def normalize_name(name: str) -> str:
    """Return a name without its module's path, case, `_` and `-`."""
    # `torch.nn.Conv2d`, `nn::conv_2d` and `conv2d` are one name.
    base_name = name.strip().replace("::", ".").rpartition(".")[2]
    return base_name.replace("_", "").replace("-", "").replace(" ", "").lower()


def match_operation(typed_name: str, known_names: tuple[str, ...]) -> Suggestion:
    """Return what a word stands for that is no op or block."""
    aliases = _build_alias_table("op").get(normalize_name(typed_name))
    return (
        Suggestion(aliases[0].ours, aliases[0].help)
        if aliases
        else _match_known_name(typed_name, known_names)
    )


def match_argument(typed_name: str, known_names: tuple[str, ...]) -> Suggestion:
    """Find what an unknown argument or key stands for; `known_names` are the valid ones."""
    aliases = _build_alias_table("argument").get(normalize_name(typed_name), ())
    for alias in aliases:
        # Only a word that this op or block has is offered; what another one has would be refused
        # again.
        if alias.ours in known_names:
            return Suggestion(alias.ours, alias.help)
    for alias in aliases:
        if not alias.ours:
            return Suggestion("", alias.note)
    # Known elsewhere and without a counterpart: a word that is merely spelt alike would mislead.
    return Suggestion() if aliases else _match_known_name(typed_name, known_names)


def match_key(typed_name: str, known_names: tuple[str, ...]) -> Suggestion:
    """Return what a key stands for that a file lacks at its top."""
    aliases = _build_alias_table("key").get(normalize_name(typed_name))
    if not aliases:
        return _match_known_name(typed_name, known_names)
    return Suggestion(aliases[0].ours, aliases[0].help if aliases[0].ours else aliases[0].note)


def match_value(typed_name: str, known_names: tuple[str, ...]) -> Suggestion:
    """Return what a value stands for that is not among `known_names`."""
    aliases = (
        *_build_alias_table("value").get(normalize_name(typed_name), ()),
        *_build_alias_table("op").get(normalize_name(typed_name), ()),
    )
    for alias in aliases:
        if alias.ours in known_names:
            note = f": {alias.note}" if alias.note else ""
            return Suggestion(alias.ours, f"write `{alias.ours}`{note}")
    for alias in aliases:
        if not alias.ours:
            return Suggestion("", alias.help)
    return Suggestion() if aliases else _match_known_name(typed_name, known_names)


def _match_known_name(typed_name: str, known_names: tuple[str, ...]) -> Suggestion:
    """Return the known word that is the same but for its case, or that one misspells."""
    # Case and underscores first: `BatchNorm` is `batch_norm`, at any distance of letters.
    for name in known_names:
        if normalize_name(name) == normalize_name(typed_name):
            return Suggestion(name, f"write `{name}`")
    nearest_name = find_nearest_name(typed_name, known_names)
    return (
        Suggestion(nearest_name, f"did you mean `{nearest_name}`?")
        if nearest_name
        else Suggestion()
    )
