"""Passes: pure functions from model to model, one file each, that state what they preserve.

To add one: add its file, and its name to `PASSES` and to the pipelines that use it. Each pass is
correct on its own, so that any order is correct; some orders only optimize more. The bound of a
pass that changes sums is 1e-4 of the largest number. That is far above the float32 rounding errors
(6e-8 each) that accumulate in deep networks, and far below the error of a wrong fold.
"""

from collections.abc import Mapping, Sequence
from functools import reduce

from tcc.compiler.ir.graph import Model, Pass, verify
from tcc.compiler.passes.common_subexpression import common_subexpression
from tcc.compiler.passes.drop_identity import drop_identity
from tcc.compiler.passes.drop_train_only import drop_train_only
from tcc.compiler.passes.fill_bias import fill_bias
from tcc.compiler.passes.fold_ahead import fold_ahead
from tcc.compiler.passes.fold_pad import fold_pad
from tcc.compiler.passes.fold_scale import fold_scale
from tcc.compiler.passes.fuse_clamps import fuse_clamps
from tcc.compiler.passes.lower_batch_norm import lower_batch_norm
from tcc.compiler.passes.lower_linear import lower_linear
from tcc.compiler.passes.lower_pool import lower_pool
from tcc.compiler.passes.lower_scale_shift import lower_scale_shift
from tcc.compiler.passes.merge_linear import merge_linear
from tcc.compiler.passes.merge_parallel import merge_parallel
from tcc.compiler.passes.merge_sum import merge_sum
from tcc.compiler.passes.pool_first import pool_first
from tcc.compiler.passes.raw_input import raw_input
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, find_nearest_name

PASSES: tuple[Pass, ...] = (
    drop_train_only, drop_identity, common_subexpression,
    fold_scale, fold_ahead, lower_batch_norm,
    fold_pad, fuse_clamps, merge_linear, merge_sum, merge_parallel,
    pool_first, raw_input, lower_linear, lower_scale_shift, lower_pool, fill_bias,
)  # fmt: skip
"""All passes."""

PLAIN: tuple[Pass, ...] = (drop_train_only, drop_identity)
"""Keeps all weights: the remaining ones keep their names and values."""

FOLDED: tuple[Pass, ...] = (*PLAIN, fold_scale, lower_batch_norm)
"""The same without batch norms; otherwise the layers are those of the spec."""

INFERENCE: tuple[Pass, ...] = (
    *PLAIN, common_subexpression,
    fold_scale, fold_pad, fold_ahead, fuse_clamps, merge_linear, merge_sum,
    lower_batch_norm, pool_first,
)  # fmt: skip
"""From the trained model to the one that a device runs: no train-only nodes, no layer that another
one can absorb, and as few multiplications as that needs.

A norm is first folded into the layer before it, where padding does not prevent its shift. Padding
is then folded into convolutions, because a norm before a pad is not next to a layer. The remaining
norms are folded into the layers after them. Clamps without effect are removed before layers are
merged, because they separate layers. Layers in a row are merged before sums of layers, which then
have one layer per branch. Sums are merged before a norm among their branches becomes a separate
scale. Poolings move last, past convolutions in their final form."""

INT8: tuple[Pass, ...] = (
    *INFERENCE,
    raw_input, lower_linear, lower_scale_shift, lower_pool, fill_bias,
)  # fmt: skip
"""The float graph from which int8 models are made: all linear ops are convolutions with a bias, and
an image input is 8-bit pixels. These passes come last, because earlier ones match linear layers,
scales and poolings."""

PIPELINES: Mapping[str, tuple[Pass, ...]] = {
    "plain": PLAIN, "folded": FOLDED, "fused": INFERENCE, "ready": INT8,
}  # fmt: skip
"""The pipelines by their names in commands."""

RENAMED_PASSES: Mapping[str, Pass] = {
    "prune": drop_train_only, "merge_equal": common_subexpression, "fold_batch_norm": fold_scale,
}  # fmt: skip
"""Passes by their former names: calibration files with such a name can still be read, but
`--passes` refuses it and names the new one."""


def run(model: Model, passes: Sequence[Pass]) -> Model:
    """Return the model after the passes in order; the graph is verified after each.

    Args:
        model: Any model; it is not changed.
        passes: The passes, in order.

    Raises:
        GraphError: A pass returned a malformed graph.
    """
    return reduce(_run_pass, passes, model)


def format_pipeline(passes: Sequence[Pass]) -> str:
    """Return a pipeline as text: the names of its passes, separated by commas."""
    return ",".join(graph_pass.name for graph_pass in passes)


def parse(text: str, at: Span) -> tuple[Pass, ...]:
    """Return the pipeline that a text describes; an empty text has no passes.

    The name of a pipeline means its passes.

    Args:
        text: Names, separated by commas.
        at: The span of the text, for diagnostics.

    Raises:
        UserError: A name is unknown (E0614). Each such name is listed, with a similar name or the
            new name of a renamed pass.
    """
    pipelines = {**PIPELINES, **{graph_pass.name: (graph_pass,) for graph_pass in PASSES}}
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    problems = tuple(_report_unknown_pass(name, at) for name in names if name not in pipelines)
    if problems:
        raise UserError(problems)
    return tuple(graph_pass for name in names for graph_pass in pipelines[name])


def _report_unknown_pass(name: str, at: Span) -> Diagnostic:
    if name in RENAMED_PASSES:
        help = f"use its new name, `{RENAMED_PASSES[name].name}`"
        return Diagnostic("E0614", f"there is no pass `{name}`", at, help=help)
    names = [graph_pass.name for graph_pass in PASSES]
    suggestion = find_nearest_name(name, [*names, *PIPELINES])
    known_names = f"known passes: {', '.join(names)}; pipelines: {', '.join(PIPELINES)}"
    help = f"did you mean `{suggestion}`? {known_names}" if suggestion else known_names
    return Diagnostic("E0614", f"there is no pass `{name[:80]}`", at, help=help)


def _run_pass(model: Model, graph_pass: Pass) -> Model:
    new_model = graph_pass(model)
    # After every pass and in every build: one walk over the nodes finds bugs before a device does.
    verify(new_model.graph)
    return new_model
