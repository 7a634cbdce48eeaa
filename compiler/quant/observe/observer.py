"""Running a float model over images, keeping extremes of all values and parts of some.

ONNX Runtime runs one image at a time on one thread; several images run side by side. What is
written down of an image depends on that image alone, so that the threads have no say.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.types import Pair
from tcc.compiler.lower.onnx_probes import (
    ChannelExtreme,
    MapRegion,
    iterate_feeds,
    lower_with_probes,
)
from tcc.compiler.ops import Concat, Conv
from tcc.compiler.quant.observe.sampling import (
    POSITIONS,
    SampledPart,
    SamplingPlan,
    build_sampling_plan,
)
from tcc.compiler.quant.observe.statistics import (
    Float32,
    ImageParts,
    InputWindows,
    Statistics,
    ValueStatistics,
    count_sampled_outputs,
    sample_output,
)
from tcc.compiler.quant.run_options import DEFAULT_RUN, RunOptions
from tcc.compiler.quant.scale_groups import find_non_negative, list_unfused_values
from tcc.compiler.reference.onnxruntime_session import Session, create_session
from tcc.compiler.support.diagnostics import NOWHERE, UserError, fail


def observe(
    model: Model,
    dataset: DataSet,
    options: RunOptions = DEFAULT_RUN,
    positions: int = POSITIONS,
) -> Statistics:
    """Return what is seen of a model over a data set.

    What is kept does not grow with the size of the images: of each value some positions, chosen
    before the first image is run. Extremes take two numbers a channel and image.

    Args:
        model: A ready float model with one input.
        dataset: Images that it takes.
        options: How images are run.
        positions: About how many positions of each value are kept, of all images together; with 0
            there are extremes alone.

    Returns:
        Statistics of which neither the order of the images nor `options` change a bit: each image
        writes into places of its own.

    Raises:
        UserError: An image is damaged, or a value is not finite (E0720), which names the layer.
    """
    (statistics,) = observe_parts(model, dataset, [range(len(dataset))], options, positions)
    return statistics


def observe_parts(
    model: Model,
    dataset: DataSet,
    parts: Sequence[Sequence[int]],
    options: RunOptions = DEFAULT_RUN,
    positions: int = POSITIONS,
) -> Iterator[Statistics]:
    """Yield what is seen of one part of the images after another, as `observe` does of all.

    Args:
        model: A ready float model with one input.
        dataset: Images that it takes.
        parts: The places of the images of each part. Only what is kept of one is held.
        options: As for `observe`.
        positions: About how many positions of each value are kept, of all parts together.
    """
    plan = build_sampling_plan(model.graph, dataset.digests, positions)
    extremes = _list_extremes(model)
    map_parts = list(_list_sampled_parts(model.graph, plan))
    # Of what hands out no parts, maps need not be laid out for them.
    part_sets = (map_parts, []) if len(plan.images) < len(dataset) and map_parts else (map_parts,)
    sessions = [
        create_session(lower_with_probes(model, extremes, probed_parts), release_memory=True)
        for probed_parts in part_sets
    ]
    completed, progress, batch = 0, options.progress, options.batch
    progress("observe", completed, len(dataset))
    for part in parts:
        observation = _prepare_observation(
            model, dataset.select(part), plan.select_images(part), extremes, sessions
        )
        tasks = [range(i, min(i + batch, len(part))) for i in range(0, len(part), batch)]
        with ThreadPoolExecutor(options.threads or os.cpu_count() or 1) as pool:
            try:
                for image_count in pool.map(observation.observe_images, tasks):
                    completed += image_count
                    progress("observe", completed, len(dataset))
            # Also when interrupted: the pool's end would otherwise wait for every image queued.
            except BaseException as error:
                pool.shutdown(cancel_futures=True)
                if isinstance(error, UserError):
                    raise dataset.collect_errors(model.graph.inputs[0]) from None
                raise
        pending = [observation.build_statistics()]
        del observation, pool, tasks
        # Nothing of it is held here while the next part is looked at.
        yield pending.pop()


@dataclass(frozen=True)
class _Observation:
    """One pass over a data set; each image has places of its own, so that threads never meet.

    The first of `sessions` gives parts of maps, the last, for images that are not `sampled_images`,
    perhaps extremes alone. `low` and `high` are (images, channels) by value, `parts` (images,
    channels, rows, columns) by name of the tap.
    """

    model: Model
    dataset: DataSet
    plan: SamplingPlan
    sampled_images: frozenset[int]
    extremes: tuple[ChannelExtreme, ...]
    sampled_parts: tuple[tuple[MapRegion, SampledPart], ...]
    sessions: Sequence[Session]
    outputs: Mapping[str, Float32]
    low: Mapping[str, Float32]
    high: Mapping[str, Float32]
    parts: Mapping[str, Float32]

    def observe_images(self, images: Sequence[int]) -> int:
        """Write down what is to be kept of images; return how many they were."""
        source = self.model.graph.inputs[0]
        for index in images:
            self._observe_image(index, {source.name: self.dataset.read_tensor(index, source)[None]})
        return len(images)

    def _observe_image(self, index: int, model_inputs: dict[str, NDArray[np.generic]]) -> None:
        digest = self.dataset.items[index].digest
        requested_parts = []
        ort_session = self.sessions[0 if index in self.sampled_images else -1]
        for part, choice in self.sampled_parts if ort_session is self.sessions[0] else ():
            start = end = (0, 0)  # nothing of it, unless it is kept of this image
            if index in choice.images:
                start, end, at = _compute_bounds(choice, digest, self.model.graph)
                requested_parts.append((part.name, choice.images.index(index), at))
            model_inputs |= iterate_feeds(part, start, end)
        names = [
            *self.outputs,
            *(extreme.name for extreme in self.extremes),
            *(name for name, *_ in requested_parts),
        ]
        arrays = dict(zip(names, ort_session.run(names, model_inputs), strict=True))
        for name, rows in self.outputs.items():
            rows[index] = sample_output(arrays[name][0])
        tables = {"Max": self.high, "Min": self.low}
        for extreme in self.extremes:
            tables[extreme.which][extreme.value][index] = arrays[extreme.name].reshape(-1)
        for name, slot, (row_offset, column_offset) in requested_parts:
            _, _, rows, columns = arrays[name].shape
            target = self.parts[name][
                slot, :, row_offset : row_offset + rows, column_offset : column_offset + columns
            ]
            target[:] = arrays[name][0]

    def build_statistics(self) -> Statistics:
        """Return what was written down.

        Raises:
            UserError: A value is not finite.
        """
        graph = self.model.graph
        # A concat's extremes are those of its parts, which are there: nothing is computed over it.
        for node in graph.nodes:
            if isinstance(node.op, Concat):
                for table in (self.low, self.high):
                    table[node.name][:] = np.hstack(
                        [table[input_name] for input_name in node.inputs]
                    )
        self._check_finite()
        samples = {name: self._get_sample(name) for name in self.plan.samples}
        for name, (outer, at) in self.plan.concat_offsets.items():
            if name in self.high and outer in samples:
                samples[name] = samples[outer][:, at : at + graph.types[name].shape[0]]
        by_value = {
            name: ValueStatistics(
                self.low[name], self.high[name], self._get_sample_parts(name, samples)
            )
            for name in self.high
        }
        windows = dict(self._iterate_windows(samples)) if samples else {}
        return Statistics(self.dataset.digests, by_value, windows, self.outputs)

    def _check_finite(self) -> None:
        tables = [*self.low.values(), *self.high.values(), *self.outputs.values()]
        finite = np.all([np.isfinite(table).all(1) for table in tables], axis=0)
        if not finite.all():
            source = self.model.graph.inputs[0]
            raise build_overflow_error(
                self.model, self.dataset.read_tensor(int(np.argmin(finite)), source)
            )

    def _get_sample(self, name: str) -> Float32:
        if f"sample {name}" not in self.parts:  # a vector is its own extreme
            return self.high[name][list(self.plan.samples[name].images)]
        part = self.parts[f"sample {name}"]
        return part.transpose(0, 2, 3, 1).reshape(-1, part.shape[1])

    def _get_sample_parts(self, name: str, samples: Mapping[str, Float32]) -> ImageParts:
        if name not in samples:
            return ImageParts(np.empty((0, self.high[name].shape[1]), np.float32), ())
        return ImageParts(samples[name], self._get_sampled_images(name))

    def _get_sampled_images(self, name: str) -> tuple[int, ...]:
        outer, _ = self.plan.concat_offsets.get(name, (name, 0))
        return self.plan.samples[outer].images

    def _iterate_windows(
        self, samples: Mapping[str, Float32]
    ) -> Iterator[tuple[str, InputWindows]]:
        for node in self.model.graph.nodes:
            input_name = node.inputs[0]
            match node.op:
                case Conv(kernel=(1, 1)) as op:
                    yield (
                        node.name,
                        InputWindows(
                            op,
                            samples[input_name][:, :, None, None],
                            self._get_sampled_images(input_name),
                        ),
                    )
                case Conv() as op:
                    parts = self.parts[f"window {node.name}"]
                    yield node.name, InputWindows(op, parts, self.plan.windows[node.name].images)


def _list_extremes(model: Model) -> tuple[ChannelExtreme, ...]:
    """Return the extremes that are looked at; those of a concat are those of its parts."""
    concats = {node.name for node in model.graph.nodes if isinstance(node.op, Concat)}
    names = [name for name in list_unfused_values(model.graph) if name not in concats]
    positive = find_non_negative(model)
    maxima = [ChannelExtreme(f"most {name}", name, "Max") for name in names]
    minima = [
        ChannelExtreme(f"least {name}", name, "Min") for name in names if name not in positive
    ]
    return (*maxima, *minima)


def _list_sampled_parts(graph: Graph, plan: SamplingPlan) -> Mapping[MapRegion, SampledPart]:
    """Return the parts of maps that are looked at."""
    return {
        **{MapRegion(f"sample {name}", name, c.step): c for name, c in plan.samples.items()
           if len(graph.types[name].shape) == 3},
        **{MapRegion(f"window {name}", c.value_name): c for name, c in plan.windows.items()},
    }  # fmt: skip


def _prepare_observation(
    model: Model,
    dataset: DataSet,
    plan: SamplingPlan,
    extremes: tuple[ChannelExtreme, ...],
    sessions: Sequence[Session],
) -> _Observation:
    graph, count = model.graph, len(dataset)
    sampled_parts = tuple(_list_sampled_parts(graph, plan).items())

    def allocate_table() -> dict[str, Float32]:
        names = list_unfused_values(graph)
        return {name: np.zeros((count, graph.types[name].shape[0]), np.float32) for name in names}

    return _Observation(
        model,
        dataset,
        plan,
        plan.images,
        extremes,
        sampled_parts,
        sessions,
        {
            o.name: np.zeros(
                (count, count_sampled_outputs(graph.types[o.value].elements)), np.float32
            )
            for o in graph.outputs
        },
        allocate_table(),
        allocate_table(),
        {part.name: _allocate_part(graph, part.name, choice) for part, choice in sampled_parts},
    )


def _allocate_part(graph: Graph, name: str, choice: SampledPart) -> Float32:
    images, channels = len(choice.images), graph.types[choice.value_name].shape[0]
    if name.startswith("sample"):  # lies in memory as it is read, position by position
        return np.zeros((images, *choice.size, channels), np.float32).transpose(0, 3, 1, 2)
    return np.zeros((images, channels, *choice.size), np.float32)


def _compute_bounds(choice: SampledPart, digest: str, graph: Graph) -> tuple[Pair, Pair, Pair]:
    """Return the first and the end row and column of a part, and where it begins in its room."""
    sizes = graph.types[choice.value_name].shape[1:]
    origin = choice.compute_origin(digest)
    spans = [
        (max(start, 0), min(start + (count - 1) * step + 1, size), max(-start, 0))
        for start, count, step, size in zip(origin, choice.size, choice.step, sizes, strict=True)
    ]
    (top, bottom, row_offset), (left_column, end, column_offset) = spans
    return (top, left_column), (bottom, end), (row_offset, column_offset)


def build_overflow_error(model: Model, tensor: Float32) -> UserError:
    """Return what is wrong with a model that gives no finite numbers for a tensor.

    Every value is looked at whole: the extremes of an observation may miss a NaN.
    """
    graph = model.graph
    image = {name for name, kind in graph.types.items() if len(kind.shape) == 3}
    parts = [MapRegion(f"all {name}", name) for name in graph.types if name in image]
    # A vector is its own extreme.
    vectors = [
        ChannelExtreme(f"all {name}", name, "Max") for name in graph.types if name not in image
    ]
    model_inputs = {graph.inputs[0].name: tensor[None]}
    for part in parts:
        height, width = graph.types[part.value].shape[1:]
        model_inputs |= iterate_feeds(part, (0, 0), (height, width))
    names = [f"all {name}" for name in graph.types]
    arrays = create_session(lower_with_probes(model, vectors, parts)).run(names, model_inputs)
    bad = [name for name, v in zip(graph.types, arrays, strict=True) if not np.isfinite(v).all()]
    name = bad[0] if bad else graph.outputs[0].value
    at = {node.name: node.at for node in graph.nodes}
    return fail(
        "E0720",
        f"with these weights, the values of `{name}` are not finite",
        at.get(name, NOWHERE),
        label="NaN or infinity for an image of the data set",
        help="look at the weights' magnitudes; the network overflows float32",
    )
