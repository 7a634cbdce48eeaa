"""Whether what a spec says an output is fits its activation and its shape."""

from typing import assert_never

from tcc.compiler.frontend.yaml import Tree
from tcc.compiler.ir.graph import Output
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support.diagnostics import UserError, fail


def check_kind(output: Output, kind: TensorType, given: Tree) -> None:
    """Refuse a `kind:` that contradicts the output's activation or shape.

    Raises:
        UserError: It does (E0235).
    """
    match output.kind:
        case None:
            return
        case "classes":
            # The largest of one value is always the first.
            if kind.shape[0] < 2:
                help = "for one value, write `kind: decisions` with `activation: sigmoid`"
                raise _contradiction(output, given, f"the output is {kind}: one value", help)
        case "decisions":
            # A decision by itself needs a probability by itself: a softmax's depend on each other.
            if output.activation != "sigmoid":
                label = f"its activation is `{output.activation}`, and decisions are probabilities"
                help = "write `activation: sigmoid`, which gives each value its own probability"
                raise _contradiction(output, given, label, help)
        case "regression":
            if output.activation == "softmax":
                help = "write `activation: none`, or leave `kind` out"
                raise _contradiction(output, given, "softmax gives shares of classes", help)
        case _:
            assert_never(output.kind)


def _contradiction(output: Output, given: Tree, label: str, help: str) -> UserError:
    message = f"`{output.name}` cannot be of kind `{output.kind}`"
    return fail("E0235", message, given.span, label=label, help=help)
