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
from tcc.compiler.lower.onnx_taps import Extreme, Part, feeds, tapped
from tcc.compiler.ops import Concat, Conv
from tcc.compiler.quant.observe.sampling import (
    POSITIONS,
    SampledPart,
    SamplingPlan,
    sampling_plan,
)
from tcc.compiler.quant.observe.statistics import (
    Float32,
    ImageParts,
    InputWindows,
    Statistics,
    ValueStatistics,
    thinned_output,
    thinned_size,
)
from tcc.compiler.quant.run_options import DEFAULT_RUN, RunOptions
from tcc.compiler.quant.scale_groups import kept_values, non_negative
from tcc.compiler.reference.onnxruntime_session import Session, session
from tcc.compiler.support.diagnostics import NOWHERE, UserError, fail


def observe(
    model: Model,
    data: DataSet,
    options: RunOptions = DEFAULT_RUN,
    positions: int = POSITIONS,
) -> Statistics:
    """Return what is seen of a model over a data set.

    What is kept does not grow with the size of the images: of each value some positions, chosen
    before the first image is run. Extremes take two numbers a channel and image.

    Args:
        model: A ready float model with one input.
        data: Images that it takes.
        options: How images are run.
        positions: About how many positions of each value are kept, of all images together; with 0
            there are extremes alone.

    Returns:
        Statistics of which neither the order of the images nor `options` change a bit: each image
        writes into places of its own.

    Raises:
        UserError: An image is damaged, or a value is not finite (E0720), which names the layer.
    """
    (found,) = observe_parts(model, data, [range(len(data))], options, positions)
    return found


def observe_parts(
    model: Model,
    data: DataSet,
    parts: Sequence[Sequence[int]],
    options: RunOptions = DEFAULT_RUN,
    positions: int = POSITIONS,
) -> Iterator[Statistics]:
    """Yield what is seen of one part of the images after another, as `observe` does of all.

    Args:
        model: A ready float model with one input.
        data: Images that it takes.
        parts: The places of the images of each part. Only what is kept of one is held.
        options: As for `observe`.
        positions: About how many positions of each value are kept, of all parts together.
    """
    plan = sampling_plan(model.graph, data.digests, positions)
    taps = _taps(model)
    parted = list(_tapped_parts(model.graph, plan))
    # Of what hands out no parts, maps need not be laid out for them.
    every = (parted, []) if len(plan.images) < len(data) and parted else (parted,)
    own = [session(tapped(model, taps, each), lean=True) for each in every]
    done, progress, batch = 0, options.progress, options.batch
    progress("observe", done, len(data))
    for part in parts:
        run = _prepared(model, data.of(part), plan.of(part), taps, own)
        tasks = [range(i, min(i + batch, len(part))) for i in range(0, len(part), batch)]
        with ThreadPoolExecutor(options.threads or os.cpu_count() or 1) as pool:
            try:
                for looked in pool.map(run.look, tasks):
                    done += looked
                    progress("observe", done, len(data))
            # Also when interrupted: the pool's end would otherwise wait for every image queued.
            except BaseException as error:
                pool.shutdown(cancel_futures=True)
                if isinstance(error, UserError):
                    raise data.damaged(model.graph.inputs[0]) from None
                raise
        found = [run.statistics()]
        del run, pool, tasks
        # Nothing of it is held here while the next part is looked at.
        yield found.pop()


@dataclass(frozen=True)
class _Observation:
    """One pass over a data set; each image has places of its own, so that threads never meet.

    The first of `sessions` gives parts of maps, the last, for images that are not `kept`, perhaps
    extremes alone. `low` and `high` are (images, channels) by value, `parts` (images, channels,
    rows, columns) by name of the tap.
    """

    model: Model
    data: DataSet
    plan: SamplingPlan
    kept: frozenset[int]
    taps: tuple[Extreme, ...]
    chosen: tuple[tuple[Part, SampledPart], ...]
    sessions: Sequence[Session]
    outputs: Mapping[str, Float32]
    low: Mapping[str, Float32]
    high: Mapping[str, Float32]
    parts: Mapping[str, Float32]

    def look(self, images: Sequence[int]) -> int:
        """Write down what is to be kept of images; return how many they were."""
        source = self.model.graph.inputs[0]
        for index in images:
            self._look(index, {source.name: self.data.tensor(index, source)[None]})
        return len(images)

    def _look(self, index: int, given: dict[str, NDArray[np.generic]]) -> None:
        digest = self.data.items[index].digest
        wanted = []
        own = self.sessions[0 if index in self.kept else -1]
        for part, choice in self.chosen if own is self.sessions[0] else ():
            first = end = (0, 0)  # nothing of it, unless it is kept of this image
            if index in choice.images:
                first, end, at = _bounds(choice, digest, self.model.graph)
                wanted.append((part.name, choice.images.index(index), at))
            given |= feeds(part, first, end)
        names = [*self.outputs, *(tap.name for tap in self.taps), *(name for name, *_ in wanted)]
        found = dict(zip(names, own.run(names, given), strict=True))
        for name, rows in self.outputs.items():
            rows[index] = thinned_output(found[name][0])
        extremes = {"Max": self.high, "Min": self.low}
        for tap in self.taps:
            extremes[tap.which][tap.value][index] = found[tap.name].reshape(-1)
        for name, slot, (down, right) in wanted:
            _, _, rows, columns = found[name].shape
            room = self.parts[name][slot, :, down : down + rows, right : right + columns]
            room[:] = found[name][0]

    def statistics(self) -> Statistics:
        """Return what was written down.

        Raises:
            UserError: A value is not finite.
        """
        graph = self.model.graph
        # A concat's extremes are those of its parts, which are there: nothing is computed over it.
        for node in graph.nodes:
            if isinstance(node.op, Concat):
                for table in (self.low, self.high):
                    table[node.name][:] = np.hstack([table[value] for value in node.inputs])
        self._check_finite()
        samples = {name: self._sample(name) for name in self.plan.samples}
        for name, (outer, at) in self.plan.within.items():
            if name in self.high and outer in samples:
                samples[name] = samples[outer][:, at : at + graph.types[name].shape[0]]
        seen = {
            name: ValueStatistics(self.low[name], self.high[name], self._kept(name, samples))
            for name in self.high
        }
        windows = dict(self._windows(samples)) if samples else {}
        return Statistics(self.data.digests, seen, windows, self.outputs)

    def _check_finite(self) -> None:
        tables = [*self.low.values(), *self.high.values(), *self.outputs.values()]
        finite = np.all([np.isfinite(table).all(1) for table in tables], axis=0)
        if not finite.all():
            source = self.model.graph.inputs[0]
            raise overflow(self.model, self.data.tensor(int(np.argmin(finite)), source))

    def _sample(self, value: str) -> Float32:
        if f"sample {value}" not in self.parts:  # a vector is its own extreme
            return self.high[value][list(self.plan.samples[value].images)]
        part = self.parts[f"sample {value}"]
        return part.transpose(0, 2, 3, 1).reshape(-1, part.shape[1])

    def _kept(self, value: str, samples: Mapping[str, Float32]) -> ImageParts:
        if value not in samples:
            return ImageParts(np.empty((0, self.high[value].shape[1]), np.float32), ())
        return ImageParts(samples[value], self._images(value))

    def _images(self, value: str) -> tuple[int, ...]:
        outer, _ = self.plan.within.get(value, (value, 0))
        return self.plan.samples[outer].images

    def _windows(self, samples: Mapping[str, Float32]) -> Iterator[tuple[str, InputWindows]]:
        for node in self.model.graph.nodes:
            value = node.inputs[0]
            match node.op:
                case Conv(kernel=(1, 1)) as op:
                    yield (
                        node.name,
                        InputWindows(op, samples[value][:, :, None, None], self._images(value)),
                    )
                case Conv() as op:
                    parts = self.parts[f"window {node.name}"]
                    yield node.name, InputWindows(op, parts, self.plan.windows[node.name].images)


def _taps(model: Model) -> tuple[Extreme, ...]:
    """Return the extremes that are looked at; those of a concat are those of its parts."""
    concats = {node.name for node in model.graph.nodes if isinstance(node.op, Concat)}
    values = [name for name in kept_values(model.graph) if name not in concats]
    positive = non_negative(model)
    most = [Extreme(f"most {name}", name, "Max") for name in values]
    least = [Extreme(f"least {name}", name, "Min") for name in values if name not in positive]
    return (*most, *least)


def _tapped_parts(graph: Graph, plan: SamplingPlan) -> Mapping[Part, SampledPart]:
    """Return the parts of maps that are looked at."""
    return {
        **{Part(f"sample {name}", name, c.step): c for name, c in plan.samples.items()
           if len(graph.types[name].shape) == 3},
        **{Part(f"window {name}", c.value): c for name, c in plan.windows.items()},
    }  # fmt: skip


def _prepared(
    model: Model,
    data: DataSet,
    plan: SamplingPlan,
    taps: tuple[Extreme, ...],
    own: Sequence[Session],
) -> _Observation:
    graph, count = model.graph, len(data)
    chosen = tuple(_tapped_parts(graph, plan).items())

    def table() -> dict[str, Float32]:
        values = kept_values(graph)
        return {name: np.zeros((count, graph.types[name].shape[0]), np.float32) for name in values}

    return _Observation(
        model,
        data,
        plan,
        plan.images,
        taps,
        chosen,
        own,
        {
            o.name: np.zeros((count, thinned_size(graph.types[o.value].elements)), np.float32)
            for o in graph.outputs
        },
        table(),
        table(),
        {part.name: _room(graph, part.name, choice) for part, choice in chosen},
    )


def _room(graph: Graph, name: str, choice: SampledPart) -> Float32:
    images, channels = len(choice.images), graph.types[choice.value].shape[0]
    if name.startswith("sample"):  # lies in memory as it is read, position by position
        return np.zeros((images, *choice.size, channels), np.float32).transpose(0, 3, 1, 2)
    return np.zeros((images, channels, *choice.size), np.float32)


def _bounds(choice: SampledPart, digest: str, graph: Graph) -> tuple[Pair, Pair, Pair]:
    """Return the first and the end row and column of a part, and where it begins in its room."""
    sizes = graph.types[choice.value].shape[1:]
    first = choice.first(digest)
    spans = [
        (max(start, 0), min(start + (count - 1) * step + 1, size), max(-start, 0))
        for start, count, step, size in zip(first, choice.size, choice.step, sizes, strict=True)
    ]
    (top, bottom, down), (left, end, right) = spans
    return (top, left), (bottom, end), (down, right)


def overflow(model: Model, tensor: Float32) -> UserError:
    """Return what is wrong with a model that gives no finite numbers for a tensor.

    Every value is looked at whole: the extremes of an observation may miss a NaN.
    """
    graph = model.graph
    image = {name for name, kind in graph.types.items() if len(kind.shape) == 3}
    parts = [Part(f"all {name}", name) for name in graph.types if name in image]
    # A vector is its own extreme.
    vectors = [Extreme(f"all {name}", name, "Max") for name in graph.types if name not in image]
    given = {graph.inputs[0].name: tensor[None]}
    for part in parts:
        height, width = graph.types[part.value].shape[1:]
        given |= feeds(part, (0, 0), (height, width))
    names = [f"all {name}" for name in graph.types]
    found = session(tapped(model, vectors, parts)).run(names, given)
    bad = [name for name, v in zip(graph.types, found, strict=True) if not np.isfinite(v).all()]
    name = bad[0] if bad else graph.outputs[0].value
    at = {node.name: node.at for node in graph.nodes}
    return fail(
        "E0720",
        f"with these weights, the values of `{name}` are not finite",
        at.get(name, NOWHERE),
        label="NaN or infinity for an image of the data set",
        help="look at the weights' magnitudes; the network overflows float32",
    )
