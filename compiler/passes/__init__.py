"""Model to model: each pass one file, pure, stating what it keeps identical.

To add one: its file, its name in `PASSES`, and in the pipelines that shall run it. Each is sound by
itself, so that any order is correct; some orders merely find more to do. The bound of a pass that
changes sums, 1e-4 of the largest number, is far above what float32's rounding (6e-8 each) adds up
to in deep networks, and far below what a wrong fold does.
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
"""Every pass there is."""

PLAIN: tuple[Pass, ...] = (drop_train_only, drop_identity)
"""What leaves all weights as they are: what remains keeps its name and its values."""

FOLDED: tuple[Pass, ...] = (*PLAIN, fold_scale, lower_batch_norm)
"""The same without batch norms, and otherwise the layers that the spec says."""

INFERENCE: tuple[Pass, ...] = (
    *PLAIN, common_subexpression,
    fold_scale, fold_pad, fold_ahead, fuse_clamps, merge_linear, merge_sum,
    lower_batch_norm, pool_first,
)  # fmt: skip
"""From what is trained to what a device runs: nothing train-only, no layer that another one can
do as well, and as few products as that takes.

A norm goes into the layer before it first, where no border is in the way of its shift. Borders then
go into convolutions, since a norm in front of one is next to no layer; and what is left of the
norms goes into layers behind them. Clamps that do nothing are left out before layers are merged,
which they keep apart; layers in a row are merged before the sums of such, which then see one layer
a branch, and these before a norm among the branches becomes a scale of its own. Poolings move last,
past convolutions that have got their last form."""

INT8: tuple[Pass, ...] = (
    *INFERENCE,
    raw_input, lower_linear, lower_scale_shift, lower_pool, fill_bias,
)  # fmt: skip
"""The float graph that integers can compute: all that is linear is a convolution with a bias, and
an image comes in as grey levels. These come last, since the passes before look for linear layers,
scales and poolings by their names."""

PIPELINES: Mapping[str, tuple[Pass, ...]] = {
    "plain": PLAIN, "folded": FOLDED, "fused": INFERENCE, "ready": INT8,
}  # fmt: skip
"""The pipelines by the names that users know."""

RENAMED_PASSES: Mapping[str, Pass] = {
    "prune": drop_train_only, "merge_equal": common_subexpression, "fold_batch_norm": fold_scale,
}  # fmt: skip
"""Passes by the names that they had before: a calibration file that has one is read as it is, but
`--passes` takes one name for each pass, and says which."""


def run(model: Model, passes: Sequence[Pass]) -> Model:
    """Return the model after the passes in turn, the graph verified after each.

    Args:
        model: Any model; it stays as it is.
        passes: What it goes through, the first first.

    Raises:
        GraphError: A pass left a graph that breaks the rules.
    """
    return reduce(_run_pass, passes, model)


def format_pipeline(passes: Sequence[Pass]) -> str:
    """Return a pipeline as text: the names of its passes, with commas between."""
    return ",".join(graph_pass.name for graph_pass in passes)


def parse(text: str, at: Span) -> tuple[Pass, ...]:
    """Return the pipeline that a text spells; an empty one has no passes.

    The name of a pipeline stands for its passes.

    Args:
        text: Names with commas between.
        at: Where the text stands, for diagnostics.

    Raises:
        UserError: A name is not known (E0614); each such name is listed, with the nearest, or
            with the name that the pass has now.
    """
    pipelines = {**PIPELINES, **{graph_pass.name: (graph_pass,) for graph_pass in PASSES}}
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    problems = tuple(_report_unknown_pass(name, at) for name in names if name not in pipelines)
    if problems:
        raise UserError(problems)
    return tuple(graph_pass for name in names for graph_pass in pipelines[name])


def _report_unknown_pass(name: str, at: Span) -> Diagnostic:
    if name in RENAMED_PASSES:
        help = f"it is called `{RENAMED_PASSES[name].name}` now"
        return Diagnostic("E0614", f"there is no pass `{name}`", at, help=help)
    names = [graph_pass.name for graph_pass in PASSES]
    suggestion = find_nearest_name(name, [*names, *PIPELINES])
    known_names = f"known passes: {', '.join(names)}; pipelines: {', '.join(PIPELINES)}"
    help = f"did you mean `{suggestion}`? {known_names}" if suggestion else known_names
    return Diagnostic("E0614", f"there is no pass `{name[:80]}`", at, help=help)


def _run_pass(model: Model, graph_pass: Pass) -> Model:
    new_model = graph_pass(model)
    # After every pass and in every build: a walk over the nodes, against faults that would show in
    # a device.
    verify(new_model.graph)
    return new_model
