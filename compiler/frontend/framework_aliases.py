"""Names in other frameworks, from framework_aliases.toml, and suggestions for unknown names.

Similar names can have different meanings: `elu` and `prelu` are one letter from `relu`. So names of
other frameworks are looked up first, and a computation that the language lacks is reported as
such. Only a name that no framework has is treated as a misspelling.
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
    """Names of one thing in other frameworks; `ours` is the name in a spec, empty if there is none.

    `write` is the replacement text if the bare name is not enough; `note` lists differences.
    """

    names: tuple[str, ...]
    ours: str = ""
    write: str = ""
    note: str = ""

    @property
    def help(self) -> str:
        """The help text of a diagnostic."""
        if not self.ours:
            return f"not supported: {self.note}"
        return f"write `{self.write or self.ours}`" + (f": {self.note}" if self.note else "")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The known name that an unknown one probably means, and a help text. Both may be empty."""

    known_name: str = ""
    help: str = ""


@cache
def list_aliases(kind: str) -> tuple[FrameworkAlias, ...]:
    """Return the entries of a kind: `op`, `argument`, `key` or `value`.

    Entries for a missing op are left out if there is an op of that name.
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
    """Return a name in lower case, without module path, spaces, `_` and `-`."""
    # `torch.nn.Conv2d`, `nn::conv_2d` and `conv2d` are one name.
    base_name = name.strip().replace("::", ".").rpartition(".")[2]
    return base_name.replace("_", "").replace("-", "").replace(" ", "").lower()


def match_operation(typed_name: str, known_names: tuple[str, ...]) -> Suggestion:
    """Return the suggestion for a name that is not an op or block."""
    aliases = _build_alias_table("op").get(normalize_name(typed_name))
    return (
        Suggestion(aliases[0].ours, aliases[0].help)
        if aliases
        else _match_known_name(typed_name, known_names)
    )


def match_argument(typed_name: str, known_names: tuple[str, ...]) -> Suggestion:
    """Return the suggestion for an unknown argument or key; `known_names` are the valid ones."""
    aliases = _build_alias_table("argument").get(normalize_name(typed_name), ())
    for alias in aliases:
        # Only suggest a name that this op or block accepts; another name would be an error again.
        if alias.ours in known_names:
            return Suggestion(alias.ours, alias.help)
    for alias in aliases:
        if not alias.ours:
            return Suggestion("", alias.note)
    # Known in other frameworks, but not supported: a similar spelling would mislead.
    return Suggestion() if aliases else _match_known_name(typed_name, known_names)


def match_key(typed_name: str, known_names: tuple[str, ...]) -> Suggestion:
    """Return the suggestion for an unknown top-level key of a file."""
    aliases = _build_alias_table("key").get(normalize_name(typed_name))
    if not aliases:
        return _match_known_name(typed_name, known_names)
    return Suggestion(aliases[0].ours, aliases[0].help if aliases[0].ours else aliases[0].note)


def match_value(typed_name: str, known_names: tuple[str, ...]) -> Suggestion:
    """Return the suggestion for a value that is not among `known_names`."""
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
    """Return the known name that equals a name apart from its case, or the nearest one."""
    # Normalized names first: `BatchNorm` is `batch_norm`, at any edit distance.
    for name in known_names:
        if normalize_name(name) == normalize_name(typed_name):
            return Suggestion(name, f"write `{name}`")
    nearest_name = find_nearest_name(typed_name, known_names)
    return (
        Suggestion(nearest_name, f"did you mean `{nearest_name}`?")
        if nearest_name
        else Suggestion()
    )
