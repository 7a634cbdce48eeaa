"""int8 programs that meet an accuracy floor, with layers in float if needed."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.float_comparison import FloatComparison, compare
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import find_fused_clamps, list_unfused_values
from tcc.compiler.reference import output_comparison
from tcc.compiler.reference.accuracy_floor import (
    AccuracyFloor,
    BelowFloor,
    FloorBounds,
    LossyLayer,
    Qualities,
    compute_mean_loss,
)
from tcc.compiler.reference.expected_loss import add_rounding, estimate_bounds
from tcc.compiler.reference.output_comparison import ComparisonImages, StackedOutputs
from tcc.compiler.support.diagnostics import NOWHERE
from tcc.compiler.support.progress import Progress

MAX_CANDIDATES = 48
"""Layers that are tried individually, those that add the most noise first."""
MAX_GROUPS = 16
"""Number of groups for the remaining layers."""
MAX_IMAGES = 16
"""Maximum images for choosing layers."""


@dataclass(frozen=True, slots=True)
class FloatLayer:
    """A step of the search: one more layer in float, together with its readers.

    `quality` is the quality after this step, on the images for choosing layers. `macs` is the share
    of the network's multiply-accumulates in float after this step.
    """

    name: str
    quality: Qualities
    macs: float


def search_float_layers(
    lowered_model: Model,
    calibration: Calibration,
    comparison: FloatComparison,
    images: tuple[DataSet, ComparisonImages],
    floor: AccuracyFloor,
    progress: Progress,
) -> tuple[Calibration, tuple[FloatLayer, ...]]:
    """Search for a few layers that must be in float for the floor to be met.

    There are two sets of images: one to choose layers, and a held-out set for the final check.
    First, each of the noisiest layers is tried in float on its own, together with its readers, so
    that its output is not rounded. The trials are ranked by the loss of the model's outputs on the
    first set. Then one layer after another is added to those in float, the most useful first. The
    search ends when the first set meets the floor and the bounds for unseen images, estimated from
    the held-out set, meet it too. Layers that were not tried follow in groups. The search builds
    one program per trial and step; trying all subsets would need 2^candidates.

    Args:
        lowered_model: The lowered fp32 model.
        calibration: The calibration of the program below the floor.
        comparison: The quantization error of its layers.
        images: Images for choosing layers, and images for the final check.
        floor: The accuracy floor.
        progress: Called with the number of completed programs.

    Returns:
        The calibration with these layers in float, and the steps of the search. If no layers
        are left before the floor is met, the calibration of the last step.
    """
    fit_trial, held_out_trial = (
        _Trial(
            lowered_model,
            calibration,
            output_comparison.compute_outputs(lowered_model, comparison_images.dataset),
            comparison_images,
        )
        for comparison_images in (
            output_comparison.select_comparison_images(images[0].select_first(MAX_IMAGES)),
            images[1],
        )
    )
    names = sort_noisy_layers(lowered_model, comparison)
    tried, untried = names[:MAX_CANDIDATES], names[MAX_CANDIDATES:]
    losses: list[tuple[float, int]] = []
    for index, name in enumerate(tried):
        progress("search", index, 2 * len(tried))
        quality = fit_trial.compute_qualities(
            fit_trial.run_with(collect_layer_and_readers(lowered_model.graph, name))
        )
        losses.append((compute_mean_loss(quality), index))
    ordered = [[tried[index]] for _, index in sorted(losses)]
    in_float: frozenset[str] = frozenset()
    steps: list[FloatLayer] = []
    for count, group in enumerate([*ordered, *_split_evenly(untried)]):
        progress("search", len(tried) + min(count, len(tried)), 2 * len(tried))
        in_float = in_float.union(
            *(collect_layer_and_readers(lowered_model.graph, name) for name in group)
        )
        quality = fit_trial.compute_qualities(fit_trial.run_with(in_float))
        macs = compute_macs_share(lowered_model, in_float)
        steps += [FloatLayer(name, quality, macs) for name in group]
        # The held-out set is only checked once the first set passes: the fewer checks, the more
        # reliable the bound.
        if floor.is_met(quality) and held_out_trial.check_floor(in_float, floor):
            break
    return replace(calibration, in_float=calibration.in_float | in_float), tuple(steps)


def _split_evenly(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the names in order, in `MAX_GROUPS` groups or fewer."""
    size = max(1, -(-len(names) // MAX_GROUPS))
    return (names[start : start + size] for start in range(0, len(names), size))


@dataclass(frozen=True)
class _Trial:
    lowered_model: Model
    calibration: Calibration
    expected: StackedOutputs
    images: ComparisonImages

    def run_with(self, names: Set[str], *, float_io: bool | None = None) -> StackedOutputs:
        """Return the outputs with more layers in float, and optionally with other output types."""
        in_float = self.calibration.in_float | names
        has_float_io = self.calibration.float_io if float_io is None else float_io
        calibration = replace(self.calibration, in_float=in_float, float_io=has_float_io)
        return output_comparison.compute_outputs(
            quantize(self.lowered_model, calibration), self.images.dataset
        )

    def compute_qualities(self, outputs: StackedOutputs) -> Qualities:
        """Return the quality of outputs against the fp32 outputs."""
        judges = self.images.held_out_count
        return output_comparison.compute_qualities(
            self.lowered_model, self.expected, outputs, judges
        )

    def check_floor(self, names: Set[str], floor: AccuracyFloor) -> bool:
        """Whether the floor is met with more layers in float, by the bounds for unseen images.

        For 8-bit outputs, the bounds are those of the program with float outputs, plus the rounding
        error of the outputs.
        """
        outputs = self.run_with(names)
        if self.calibration.float_io:
            bounds = estimate_bounds(self.lowered_model, self.expected, outputs, self.images)
        else:
            float_outputs = self.run_with(names, float_io=True)
            bounds = estimate_bounds(self.lowered_model, self.expected, float_outputs, self.images)
            bounds = add_rounding(
                self.lowered_model, bounds, (self.expected, float_outputs, outputs)
            )
        return floor.is_met(self.compute_qualities(outputs), bounds)


def collect_layer_and_readers(graph: Graph, name: str) -> frozenset[str]:
    """Return an unfused value and the unfused values of the layers that read it.

    Operations that only move values are passed through to their readers.
    """
    clamp_by_source = {source: clamp for clamp, source in find_fused_clamps(graph).items()}
    layer_names = {name}
    pending = [name]
    while pending:
        for reader in graph.readers[pending.pop()]:
            reader_name = clamp_by_source.get(reader.name, reader.name)
            if reader.op.moves and reader_name not in layer_names:
                pending.append(reader_name)
            layer_names.add(reader_name)
    return frozenset(layer_names)


def sort_noisy_layers(lowered_model: Model, comparison: FloatComparison) -> Sequence[str]:
    """Return the values in order of the noise that their layers add, in decibels, largest first.

    Operations that only move values add no noise.
    """
    by_name = {node.name: node for node in lowered_model.graph.nodes}
    sources = find_fused_clamps(lowered_model.graph)
    snr = {layer.name: layer.snr for layer in comparison.layers}
    noise_by_name = {}
    for name in list_unfused_values(lowered_model.graph):
        node = by_name.get(sources.get(name, name))
        if node is None or name not in snr or node.op.moves:
            continue
        # Relative to the worst input: its noise does not come from this layer.
        input_snr = min((snr[v] for v in node.inputs if v in snr), default=snr[name])
        noise_by_name[name] = input_snr - snr[name]
    order = list(noise_by_name)
    return sorted(order, key=lambda name: (-noise_by_name[name], order.index(name)))


def compute_macs_share(lowered_model: Model, names: Set[str]) -> float:
    """Return the share of the network's multiply-accumulates in some layers."""
    graph, sources = lowered_model.graph, find_fused_clamps(lowered_model.graph)
    # For a fused clamp, the multiply-accumulates are its convolution's.
    layer_names = names | {sources[name] for name in names if name in sources}
    macs = {node.name: node.op.macs(*graph.get_input_types(node)) for node in graph.nodes}
    return sum(macs[name] for name in layer_names if name in macs) / max(sum(macs.values()), 1)


@dataclass(frozen=True, slots=True)
class MeasuredProgram:
    """An int8 program with its calibration, comparison with fp32, and search steps."""

    program: Model
    calibration: Calibration
    comparison: FloatComparison
    steps: tuple[FloatLayer, ...] = ()


def measure_program(
    lowered_model: Model, calibration: Calibration, images: ComparisonImages, progress: Progress
) -> MeasuredProgram:
    """Return the int8 program of a calibration, compared with the fp32 model.

    Args:
        lowered_model: The lowered fp32 model.
        calibration: Its calibration.
        images: The images for the comparison.
        progress: Called with the number of completed images.
    """
    program = quantize(lowered_model, calibration)
    return MeasuredProgram(
        program, calibration, compare(lowered_model, program, calibration, images, progress)
    )


def add_float_layers(
    lowered_model: Model,
    int8_program: MeasuredProgram,
    floor: AccuracyFloor,
    fit_images: DataSet,
    held_out_images: ComparisonImages,
    progress: Progress,
) -> MeasuredProgram:
    """Return the program with as many layers in float as the floor needs.

    Args:
        lowered_model: The lowered fp32 model.
        int8_program: Its int8 program, which is below the floor.
        floor: The accuracy floor.
        fit_images: Images for choosing layers.
        held_out_images: Images for the final check.
        progress: Called as the search proceeds.
    """
    images = fit_images, held_out_images
    mixed, steps = search_float_layers(
        lowered_model, int8_program.calibration, int8_program.comparison, images, floor, progress
    )
    mixed_program = measure_program(lowered_model, mixed, held_out_images, progress)
    return MeasuredProgram(
        mixed_program.program, mixed_program.calibration, mixed_program.comparison, steps
    )


def require_floor(
    program: MeasuredProgram, floor: AccuracyFloor, bounds: FloorBounds, *, mixed: bool
) -> MeasuredProgram:
    """Return the program if it meets the floor.

    Args:
        program: The measured program.
        floor: The accuracy floor.
        bounds: Bounds of the quality on unseen images, by output.
        mixed: Whether layers were already put into float for the floor.

    Raises:
        BelowFloor: It does not. The error names the layers with the largest quantization error.
    """
    comparison = program.comparison
    violations = floor.find_violations(comparison.quality, bounds)
    if violations:
        span_by_node = {node.name: node.at for node in program.program.graph.nodes}
        lossy_layers = [
            LossyLayer(
                # The lowest signal-to-noise ratio first.
                o.name,
                f"{o.snr:.1f} dB, cosine {o.cosine:.4f}",
                span_by_node.get(o.name, NOWHERE),
            )
            for o in comparison.find_worst_layers()
        ]
        raise BelowFloor(violations, comparison.quality, lossy_layers, mixed=mixed)
    return program
