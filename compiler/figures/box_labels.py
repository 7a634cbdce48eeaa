"""What the box of one operation says."""

from collections.abc import Mapping
from dataclasses import dataclass

from tcc.compiler.ir.graph import Node
from tcc.compiler.ir.types import TensorType

WIDTHS = frozenset({"filters", "groups", "units", "start", "stop", "multiplier"})
"""Attributes that follow from the number of channels."""
VARYING = WIDTHS | {"rate"}
"""Attributes in which the turns of a `repeat` may differ and still be alike."""


@dataclass(frozen=True, slots=True)
class AttributeLabel:
    """An attribute's words, if its value is not the one that goes without saying."""

    before: str = ""
    after: str = ""
    silent: tuple[object, ...] = (None,)
    short: bool = False

    def __call__(self, value: object) -> str:
        """Return the words for a value; a short one of equal parts is said once."""
        if value in self.silent:
            return ""
        return f"{self.before}{_value(value, self.short)}{self.after}"


_ONES = (None, 1, (1, 1))
_ATTRIBUTES: Mapping[str, AttributeLabel] = {
    "kernel": AttributeLabel(),
    "size": AttributeLabel(),
    "filters": AttributeLabel(after=" filters"),
    "units": AttributeLabel(after=" units"),
    "stride": AttributeLabel("stride ", silent=_ONES, short=True),
    "padding": AttributeLabel("pad ", silent=(0, (0, 0), (0, 0, 0, 0)), short=True),
    "output_padding": AttributeLabel("output pad ", silent=((0, 0),)),
    "dilation": AttributeLabel("dilation ", silent=_ONES, short=True),
    "groups": AttributeLabel(after=" groups", silent=_ONES),
    "multiplier": AttributeLabel("multiplier ", silent=_ONES),
    "rate": AttributeLabel("rate "),
    "slope": AttributeLabel("slope "),
    "factor": AttributeLabel("factor ", silent=(1.0,)),
    "offset": AttributeLabel("offset ", silent=(0.0,)),
    "scale": AttributeLabel("scale "),
    "mode": AttributeLabel(),
    "ceil": AttributeLabel("ceil", silent=(False,)),
    "start": AttributeLabel("from "),
    "stop": AttributeLabel("to "),
    "step": AttributeLabel("step ", silent=_ONES),
    "value": AttributeLabel("value ", silent=(0.0,)),
}
"""What is said of each attribute, in this order; of others (`bias`, `eps`) nothing is."""


def details(node: Node) -> str:
    """Return an operation's key attributes: `7x7, 64 filters, stride 2, pad 3`."""
    found = dict(node.op.attributes())
    depthwise = _depthwise(node)
    if depthwise:
        found.pop("groups")
    said = [words(found[name]) for name, words in _ATTRIBUTES.items() if name in found]
    return ", ".join(text for text in (*said, depthwise) if text)


def brief(node: Node) -> str:
    """Return an operation in a few characters: `conv 7x7 /2`."""
    found = node.op.attributes()
    kernel = f" {_value(found['kernel'])}" if "kernel" in found else ""
    stride = found.get("stride")
    step = "" if stride in _ONES else f" /{_value(stride, short=True)}"
    kind = _depthwise(node)
    return f"{kind or node.op.word}{kernel}{step}"


def shape_of(kind: TensorType) -> str:
    """Return a type as edges bear it; only unusual element types are named."""
    return str(kind) if kind.dtype == "float32" else f"{kind.dtype} {kind}"


def _depthwise(node: Node) -> str:
    found = node.op.attributes()
    groups = found.get("groups")
    # ONNX and PyTorch have no such operator: it is a convolution of as many groups as filters.
    return "depthwise" if groups not in (None, 1) and groups == found.get("filters") else ""


def _value(value: object, short: bool = False) -> str:
    match value:
        case True:
            return ""
        case (first, *rest) if short and all(part == first for part in rest):
            return str(first)
        case (top, left, bottom, right) if (top, left) == (bottom, right):
            return f"{top}x{left}"
        case tuple():
            return "x".join(map(str, value))
    return str(value)
