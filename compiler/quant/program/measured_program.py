"""From a calibration to an integer program that keeps its floor, or a refusal that names layers."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.float_comparison import FloatComparison, compare
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import fused_clamps, kept_values
from tcc.compiler.reference import output_comparison
from tcc.compiler.reference.accuracy_floor import (
    AccuracyFloor,
    BelowFloor,
    FloorBounds,
    LossyLayer,
    Qualities,
    loss,
)
from tcc.compiler.reference.expected_loss import add_rounding, estimate_bounds
from tcc.compiler.reference.output_comparison import ComparisonImages, StackedOutputs
from tcc.compiler.support.diagnostics import NOWHERE
from tcc.compiler.support.progress import Progress

CANDIDATES = 48
"""Layers that are tried one by one, those that add the most noise first."""
GROUPS = 16
"""Groups in which all other layers follow these."""
IMAGES = 16
"""Most images that choose layers."""


@dataclass(frozen=True, slots=True)
class FloatLayer:
    """One more layer in float with what reads it: the quality then, and what floats cost so far.

    The quality is over the images that choose layers. `macs` is the share of the network's
    multiply-accumulates that are floats'.
    """

    name: str
    quality: Qualities
    macs: float


def search(
    ready: Model,
    calibration: Calibration,
    comparison: FloatComparison,
    images: tuple[DataSet, ComparisonImages],
    floor: AccuracyFloor,
    progress: Progress,
) -> tuple[Calibration, tuple[FloatLayer, ...]]:
    """Return a calibration with as few layers in float as the floor needs, and how it got there.

    Each of the layers that add the most noise is put into float by itself, with what reads it, so
    that its result is not rounded either, and judged by the model's own outputs over the first of
    two sets of images; then they go into float together, the most useful first, until the first set
    meets the floor and the second meets it by its bounds for unseen images. The second set chooses
    no layer. The layers that were not tried follow in groups. Where none are left, the last
    calibration is returned. It takes a program for each candidate and step, where all subsets
    would take 2^candidates.

    Args:
        ready: The ready float model.
        calibration: That of the program that loses too much.
        comparison: What its layers lose.
        images: Those that choose layers, and those that judge.
        floor: What must hold.
        progress: Told how many programs are done.
    """
    chooser, judge = (
        _Trial(ready, calibration, output_comparison.all_outputs(ready, few.data), few)
        for few in (output_comparison.comparison_images(images[0].first(IMAGES)), images[1])
    )
    names = candidates(ready, comparison)
    tried, untried = names[:CANDIDATES], names[CANDIDATES:]
    losses: list[tuple[float, int]] = []
    for index, name in enumerate(tried):
        progress("search", index, 2 * len(tried))
        quality = chooser.compute_qualities(chooser.run_with(layer_and_readers(ready.graph, name)))
        losses.append((loss(quality), index))
    ordered = [[tried[index]] for _, index in sorted(losses)]
    in_float: frozenset[str] = frozenset()
    steps: list[FloatLayer] = []
    for count, group in enumerate([*ordered, *_split_evenly(untried)]):
        progress("search", len(tried) + min(count, len(tried)), 2 * len(tried))
        in_float = in_float.union(*(layer_and_readers(ready.graph, name) for name in group))
        quality = chooser.compute_qualities(chooser.run_with(in_float))
        macs = macs_share(ready, in_float)
        steps += [FloatLayer(name, quality, macs) for name in group]
        # Judged only once the images that choose are content: the fewer looks, the truer the bound.
        if floor.holds(quality) and judge.check_floor(in_float, floor):
            break
    return replace(calibration, in_float=calibration.in_float | in_float), tuple(steps)


def _split_evenly(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the names in order, in `GROUPS` groups or fewer."""
    size = max(1, -(-len(names) // GROUPS))
    return (names[start : start + size] for start in range(0, len(names), size))


@dataclass(frozen=True)
class _Trial:
    ready: Model
    calibration: Calibration
    expected: StackedOutputs
    images: ComparisonImages

    def run_with(self, names: Set[str], *, real_ends: bool | None = None) -> StackedOutputs:
        """Return the outputs with some more layers in float, and with ends of another kind."""
        in_float = self.calibration.in_float | names
        real = self.calibration.real_ends if real_ends is None else real_ends
        calibration = replace(self.calibration, in_float=in_float, real_ends=real)
        return output_comparison.all_outputs(quantize(self.ready, calibration), self.images.data)

    def compute_qualities(self, outputs: StackedOutputs) -> Qualities:
        """Return how near outputs come to the floats."""
        judges = self.images.judges
        return output_comparison.qualities(self.ready, self.expected, outputs, judges)

    def check_floor(self, names: Set[str], floor: AccuracyFloor) -> bool:
        """Whether the floor holds with some more layers in float, by the bounds for unseen images.

        Where the program ends in integers, the bounds are those of the one that ends in real
        numbers, and what rounding its outputs adds.
        """
        outputs = self.run_with(names)
        if self.calibration.real_ends:
            bounds = estimate_bounds(self.ready, self.expected, outputs, self.images)
        else:
            real = self.run_with(names, real_ends=True)
            bounds = estimate_bounds(self.ready, self.expected, real, self.images)
            bounds = add_rounding(self.ready, bounds, (self.expected, real, outputs))
        return floor.holds(self.compute_qualities(outputs), bounds)


def layer_and_readers(graph: Graph, name: str) -> frozenset[str]:
    """Return a kept value and the kept values of the layers that read it.

    Through what only moves numbers, on to the layers behind it.
    """
    outer = {source: clamp for clamp, source in fused_clamps(graph).items()}
    found = {name}
    pending = [name]
    while pending:
        for reader in graph.readers[pending.pop()]:
            value = outer.get(reader.name, reader.name)
            if reader.op.moves and value not in found:
                pending.append(value)
            found.add(value)
    return frozenset(found)


def candidates(ready: Model, comparison: FloatComparison) -> Sequence[str]:
    """Return the values whose layer adds noise, by how much of it: decibels from input to output.

    What only moves numbers adds none.
    """
    by_name = {node.name: node for node in ready.graph.nodes}
    sources = fused_clamps(ready.graph)
    snr = {layer.name: layer.snr for layer in comparison.layers}
    lost = {}
    for name in kept_values(ready.graph):
        node = by_name.get(sources.get(name, name))
        if node is None or name not in snr or node.op.moves:
            continue
        # From the worst of the inputs: what these lost already is not this layer's.
        before = min((snr[v] for v in node.inputs if v in snr), default=snr[name])
        lost[name] = before - snr[name]
    order = list(lost)
    return sorted(order, key=lambda name: (-lost[name], order.index(name)))


def macs_share(ready: Model, names: Set[str]) -> float:
    """Return the share of the multiply-accumulates that layers have."""
    graph, sources = ready.graph, fused_clamps(ready.graph)
    # A kept value may be a clamp; the multiply-accumulates are its convolution's.
    chosen = names | {sources[name] for name in names if name in sources}
    macs = {node.name: node.op.macs(*graph.input_types(node)) for node in graph.nodes}
    return sum(macs[name] for name in chosen if name in macs) / max(sum(macs.values()), 1)


@dataclass(frozen=True, slots=True)
class MeasuredProgram:
    """An integer program, its calibration, how it compares with floats, and how floats got in."""

    program: Model
    calibration: Calibration
    comparison: FloatComparison
    steps: tuple[FloatLayer, ...] = ()


def measured(
    ready: Model, calibration: Calibration, images: ComparisonImages, progress: Progress
) -> MeasuredProgram:
    """Return the integer program of a calibration, compared with floats over images.

    Args:
        ready: The ready float model.
        calibration: Its calibration.
        images: Those to compare over.
        progress: Told how many images are done.
    """
    program = quantize(ready, calibration)
    return MeasuredProgram(
        program, calibration, compare(ready, program, calibration, images, progress)
    )


def with_float_layers(
    ready: Model,
    made: MeasuredProgram,
    floor: AccuracyFloor,
    choose: DataSet,
    judge: ComparisonImages,
    progress: Progress,
) -> MeasuredProgram:
    """Return the program with layers in float, as many as the floor needs.

    Args:
        ready: The ready float model.
        made: Its integer program as measured, which does not keep the floor.
        floor: What it is to keep.
        choose: Images that choose layers.
        judge: Images that judge what was chosen.
        progress: Told how far the search is.
    """
    images = choose, judge
    mixed, steps = search(ready, made.calibration, made.comparison, images, floor, progress)
    again = measured(ready, mixed, judge, progress)
    return MeasuredProgram(again.program, again.calibration, again.comparison, steps)


def require_floor(
    program: MeasuredProgram, floor: AccuracyFloor, bounds: FloorBounds, *, mixed: bool
) -> MeasuredProgram:
    """Return the program, if it keeps the floor.

    Args:
        program: It as measured.
        floor: What it is to keep.
        bounds: What unseen images keep, by output.
        mixed: Whether layers were kept in float for the floor already.

    Raises:
        BelowFloor: It does not; the layers that lose the most are named.
    """
    comparison = program.comparison
    broken = floor.broken(comparison.quality, bounds)
    if broken:
        span_by_node = {node.name: node.at for node in program.program.graph.nodes}
        culprits = [
            LossyLayer(
                # By the layer's own loss in signal to noise, worst first, which is where to look.
                o.name,
                f"{o.snr:.1f} dB, cosine {o.cosine:.4f}",
                span_by_node.get(o.name, NOWHERE),
            )
            for o in comparison.worst()
        ]
        raise BelowFloor(broken, comparison.quality, culprits, mixed=mixed)
    return program
