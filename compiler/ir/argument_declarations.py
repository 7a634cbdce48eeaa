"""What arguments a word of the language takes: ops and blocks alike.

An op declares its arguments as dataclass fields made by `arg`; a block declares them in its
`params:`. Both become a tuple of `Parameter`, the one thing that binding, the JSON Schema
and the language reference are made from.
"""

from dataclasses import MISSING, Field, dataclass, field, fields
from enum import StrEnum
from functools import cache
from typing import Any

ArgumentValue = int | float | bool | str | tuple["ArgumentValue", ...]
"""What an argument can be once its expression is evaluated."""


class Kind(StrEnum):
    """The type of an argument."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    ENUM = "enum"
    PAIR = "pair"
    PADDING = "padding"
    LIST = "list"
    STRING = "string"
    NAMES = "names"
    """A list of strings, taken as they stand."""
    ANY = "any"
    """Whatever a parameter's default, an expression, evaluates to."""


# A class of its own and not None: None is a default that arguments have (`stride: null`).
class Required:
    """The type of `REQUIRED`."""

    def __repr__(self) -> str:
        """The word that messages and references use."""
        return "required"


REQUIRED = Required()
"""Stands where a default would: the argument must be given."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of an op or block; numbers lie in [low, high] where these are given.

    A number of an op (`single`) is one that float32 has, as devices compute in it.
    """

    name: str
    kind: Kind
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    doc: str = ""
    single: bool = False


def arg(
    kind: Kind,
    default: Any = REQUIRED,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    doc: str = "",
) -> Any:
    """Declare a dataclass field that is an argument in the spec language.

    Args:
        kind: What values it takes.
        default: What stands for it where it is not given; without one it must be given.
        choices: The words that an enumerated one takes.
        low: The least number.
        high: The greatest one.
        doc: What it is, in a few words of the language's reference.
    """
    meta = {"arg": (kind, choices, low, high, doc)}
    if isinstance(default, Required):
        return field(metadata=meta)
    return field(default=default, metadata=meta)


@cache
def list_parameters(declaration: type) -> tuple[Parameter, ...]:
    """Return the arguments that a dataclass declared with `arg`, in order."""
    return tuple(_build_parameter(f) for f in fields(declaration) if "arg" in f.metadata)


def _build_parameter(f: "Field[Any]") -> Parameter:
    kind, choices, low, high, doc = f.metadata["arg"]
    default = REQUIRED if f.default is MISSING else f.default
    # An op's argument; those of blocks are made elsewhere, and their numbers stay Python's.
    return Parameter(f.name, kind, default, choices, low, high, doc, single=True)
