"""Collection of statistics: runs an fp32 model over images, and keeps extremes and samples.

ONNX Runtime runs each image on one thread; several images run in parallel. The statistics of an
image depend on that image alone, so that they do not depend on the threads.
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
    """Collect statistics of a model over a dataset.

    Memory does not grow with the size of the images: samples have a fixed number of positions,
    chosen before the first image runs. Extremes take two numbers per channel and image.

    Args:
        model: A lowered fp32 model with one input.
        dataset: Images for the model.
        options: How to run the images.
        positions: Approximate number of sampled positions per value, over all images; 0 for
            extremes only.

    Returns:
        Statistics that do not depend on the order of the images or on `options`.

    Raises:
        UserError: An image is damaged, or a value is not finite (E0720).
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
    """Yield the statistics of each part of the images; see `observe`.

    Args:
        model: A lowered fp32 model with one input.
        dataset: Images for the model.
        parts: Image indices of each part. Only one part is in memory at a time.
        options: How to run the images.
        positions: Approximate number of sampled positions per value, over all parts.
    """
    plan = build_sampling_plan(model.graph, dataset.digests, positions)
    extremes = _list_extremes(model)
    map_parts = list(_list_sampled_parts(model.graph, plan))
    # Images without samples use a session without map probes, which is faster.
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
            # Also on an interrupt: otherwise, the pool would wait for all queued images.
            except BaseException as error:
                pool.shutdown(cancel_futures=True)
                if isinstance(error, UserError):
                    raise dataset.collect_errors(model.graph.inputs[0]) from None
                raise
        pending = [observation.build_statistics()]
        del observation, pool, tasks
        # No reference remains here while the next part is processed.
        yield pending.pop()


@dataclass(frozen=True)
class _Observation:
    """One pass over a dataset. Each image writes to its own rows, so that threads do not conflict.

    The first session gives extremes and parts of maps. The last session is for images that are not
    in `sampled_images`, and may give extremes only. `low` and `high` are (images, channels) by
    value; `parts` are (images, channels, rows, columns) by name of the probe.
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
        """Store the statistics of some images; return their number."""
        network_input = self.model.graph.inputs[0]
        for index in images:
            self._observe_image(
                index, {network_input.name: self.dataset.read_tensor(index, network_input)[None]}
            )
        return len(images)

    def _observe_image(self, index: int, model_inputs: dict[str, NDArray[np.generic]]) -> None:
        digest = self.dataset.items[index].digest
        requested_parts = []
        ort_session = self.sessions[0 if index in self.sampled_images else -1]
        for part, choice in self.sampled_parts if ort_session is self.sessions[0] else ():
            start = end = (0, 0)  # empty, unless this image is sampled
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
        """Return the collected statistics.

        Raises:
            UserError: A value is not finite (E0720).
        """
        graph = self.model.graph
        # A concat's extremes are those of its inputs.
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
            network_input = self.model.graph.inputs[0]
            raise build_overflow_error(
                self.model, self.dataset.read_tensor(int(np.argmin(finite)), network_input)
            )

    def _get_sample(self, name: str) -> Float32:
        if f"sample {name}" not in self.parts:  # for a vector, the extremes are the values
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
    """Return the extremes to compute; those of a concat follow from its inputs."""
    concats = {node.name for node in model.graph.nodes if isinstance(node.op, Concat)}
    names = [name for name in list_unfused_values(model.graph) if name not in concats]
    positive = find_non_negative(model)
    maxima = [ChannelExtreme(f"most {name}", name, "Max") for name in names]
    minima = [
        ChannelExtreme(f"least {name}", name, "Min") for name in names if name not in positive
    ]
    return (*maxima, *minima)


def _list_sampled_parts(graph: Graph, plan: SamplingPlan) -> Mapping[MapRegion, SampledPart]:
    """Return the parts of maps to sample."""
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
    if name.startswith("sample"):  # channels last in memory, since it is read by position
        return np.zeros((images, *choice.size, channels), np.float32).transpose(0, 3, 1, 2)
    return np.zeros((images, channels, *choice.size), np.float32)


def _compute_bounds(choice: SampledPart, digest: str, graph: Graph) -> tuple[Pair, Pair, Pair]:
    """Return a part's start and end (row, column) in the map, and its offset in its array."""
    sizes = graph.types[choice.value_name].shape[1:]
    origin = choice.compute_origin(digest)
    spans = [
        (max(start, 0), min(start + (count - 1) * step + 1, size), max(-start, 0))
        for start, count, step, size in zip(origin, choice.size, choice.step, sizes, strict=True)
    ]
    (top, bottom, row_offset), (left_column, end, column_offset) = spans
    return (top, left_column), (bottom, end), (row_offset, column_offset)


def build_overflow_error(model: Model, tensor: Float32) -> UserError:
    """Return the error for a model with values that are not finite; it names the first layer.

    All values are checked in full, because extremes can miss a NaN.
    """
    graph = model.graph
    image = {name for name, kind in graph.types.items() if len(kind.shape) == 3}
    parts = [MapRegion(f"all {name}", name) for name in graph.types if name in image]
    # For a vector, the maxima are the values.
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
        label="NaN or infinity for an image of the dataset",
        help="the network overflows float32: check the magnitudes of the weights",
    )
