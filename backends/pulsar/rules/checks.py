"""Checks that rules of several operators and chips share: each makes one from what it may be."""

from typing import Any

from tcc.backends.pulsar.rules.operator import OnnxOperator
from tcc.backends.pulsar.rules.rule import Check


def only(name: str, *allowed: Any) -> Check:
    """Return the check that an attribute is left out or one of the allowed."""

    def broken(one: OnnxOperator) -> str | None:
        # The first of the allowed is ONNX's own default, which an attribute that is left out has.
        found = one.attributes.get(name, allowed[0])
        return None if found in allowed else f"`{name}` is {_shown(found)}"

    return broken


def absent(*names: str) -> Check:
    """Return the check that attributes are left out."""

    def broken(one: OnnxOperator) -> str | None:
        found = [name for name in names if name in one.attributes]
        return f"`{found[0]}` is {_shown(one.attributes[found[0]])}" if found else None

    return broken


def given(name: str) -> Check:
    """Return the check that an attribute is not left to its default."""

    def broken(one: OnnxOperator) -> str | None:
        return None if name in one.attributes else f"`{name}` is left out"

    return broken


def rank(*allowed: int) -> Check:
    """Return the check of how many dimensions the first input has."""

    def broken(one: OnnxOperator) -> str | None:
        found = len(one.shape(0))
        return None if found in allowed else f"its input has {found} dimensions"

    return broken


def after(*kinds: str) -> Check:
    """Return the check of what makes the first input."""

    def broken(one: OnnxOperator) -> str | None:
        source = one.inputs[0] if one.inputs else None
        maker = (source.maker if source else "") or "an input"
        return None if maker in kinds else f"it comes after {maker}"

    return broken


def symmetric(one: OnnxOperator) -> str | None:
    """Say which pads are not the same on both sides."""
    top, left, bottom, right = one.pads
    return None if (top, left) == (bottom, right) else f"its pads are {_shown(one.pads)}"


def ones(name: str) -> Check:
    """Return the check that all numbers of an attribute are 1."""

    def broken(one: OnnxOperator) -> str | None:
        found = one.attributes.get(name, ())
        return None if all(each == 1 for each in found) else f"`{name}` is {_shown(found)}"

    return broken


def constant(place: int, *allowed: float) -> Check:
    """Return the check that an input is left out, or a constant of allowed numbers."""

    def broken(one: OnnxOperator) -> str | None:
        # Left out is allowed: the rules are about what is said.
        if place >= len(one.inputs) or one.inputs[place] is None:
            return None
        numbers = one.constant(place)
        if numbers is None:
            return f"input {place} is no constant"
        odd = [float(each) for each in numbers.reshape(-1) if float(each) not in allowed]
        return f"it holds {odd[0]:g}" if odd else None

    return broken


def never(one: OnnxOperator) -> str:
    """Say that the operator is there, which is what is wrong."""
    return f"it is a {one.kind}"


def _shown(found: Any) -> str:
    return str(list(found)) if isinstance(found, tuple) else str(found)[:60]
