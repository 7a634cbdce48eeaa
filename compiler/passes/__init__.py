"""Model to model: each pass one file, pure, stating what it keeps identical.

To add one: its file, and its name in the pipelines that shall run it.
"""

from functools import reduce

from tcc.compiler.graph import Model, Pass, verify
from tcc.compiler.passes.drop_identity import drop_identity
from tcc.compiler.passes.fold_batch_norm import fold_batch_norm
from tcc.compiler.passes.lower_batch_norm import lower_batch_norm
from tcc.compiler.passes.prune import prune

INFERENCE: tuple[Pass, ...] = (prune, drop_identity, fold_batch_norm, lower_batch_norm)
"""From what is trained to what a device runs: no batch norm, no dropout, nothing train-only."""

PLAIN: tuple[Pass, ...] = (prune, drop_identity)
"""The same without changing a weight: what remains keeps its name and its values."""


def run(model: Model, passes: tuple[Pass, ...]) -> Model:
    """Return the model after the passes in turn, the graph verified after each.

    Raises:
        GraphError: A pass left a graph that breaks the rules.
    """
    return reduce(_step, passes, model)


def _step(model: Model, one: Pass) -> Model:
    after = one(model)
    verify(after.graph)
    return after
