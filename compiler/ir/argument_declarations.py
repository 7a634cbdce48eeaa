"""The arguments of ops and blocks.

An op declares its arguments as dataclass fields made by `arg`; a block declares them in its
`params:`. Both become a tuple of `Parameter`, from which argument binding, the JSON Schema and the
language reference are made.
"""

from dataclasses import MISSING, Field, dataclass, field, fields
from enum import StrEnum
from functools import cache
from typing import Any

ArgumentValue = int | float | bool | str | tuple["ArgumentValue", ...]
"""The value of an argument after its expression is evaluated."""


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
    """A list of strings, which are not evaluated."""
    ANY = "any"
    """Any value to which the expression of a parameter's default evaluates."""


# A class and not None, because None is a default of some arguments (`stride: null`).
class Required:
    """The type of `REQUIRED`."""

    def __repr__(self) -> str:
        """Return the word that messages and references use."""
        return "required"


REQUIRED = Required()
"""In place of a default: the argument must be given."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of an op or block; numbers must be in [low, high], where these are given.

    If `single`, as for the arguments of ops, numbers must be float32 values: devices use float32.
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
        kind: The type of its values.
        default: Its value if it is not given; without a default it must be given.
        choices: The words that an enumerated argument accepts.
        low: The lowest number.
        high: The highest number.
        doc: A short description for the language reference.
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
    # An op's argument; numbers in arguments of blocks stay Python numbers.
    return Parameter(f.name, kind, default, choices, low, high, doc, single=True)
