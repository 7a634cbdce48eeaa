"""Remove nodes that only training needs."""

from tcc.compiler.ir.graph import Model, exact_pass
from tcc.compiler.ir.rewrite import eliminate_dead, extract_inference_graph


@exact_pass
def drop_train_only(model: Model) -> Model:
    """Remove nodes that only training needs, and nodes that then reach no output.

    Identity: exact. The remaining nodes are unchanged.
    """
    # Weights of removed outputs are removed too, so that no target stores them.
    return eliminate_dead(Model(extract_inference_graph(model.graph), model.weights))
