"""Predictions of a network for images: raw outputs, probabilities, and decisions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs, manifest
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import OutputContract
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.reference import decision_rule, float_program, prediction_sets
from tcc.compiler.reference.output_activations import apply_activation
from tcc.compiler.support.value_views import ValueView, count, list_names

MAX_SHOWN_IMAGES, MAX_NAME_LENGTH = 3, 24
"""Most images in a summary, and most characters of their names."""


@dataclass(frozen=True, repr=False)
class Prediction(ValueView):
    """One output for one image: raw values, and the values after its activation.

    `point` is its fitted operating point, if any.
    """

    output: OutputContract
    raw: NDArray[np.float32]
    values: NDArray[np.float64]
    point: OperatingPoint | None

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, or their indices."""
        return self.output.labels or tuple(map(str, range(len(self.values))))

    def _summarize(self) -> Iterator[str]:
        yield f"{self.output.name}: {self.describe()}"

    def describe(self) -> str:
        """Return one line about the output's values."""
        if self.values.ndim != 1:
            shape = "x".join(map(str, self.values.shape))
            return f"{shape} values from {self.values.min():.4f} to {self.values.max():.4f}"
        ranking = list_names(f"{label} {number:.4f}" for _, label, number in self.ranked())
        parts = [ranking]
        if (decided := self.decided()) is not None:
            parts.append(f"decided: {list_names(self.labels[i] for i in decided) or 'none'}")
        if (members := self.prediction_set()) is not None:
            parts.append(f"set: {list_names(self.labels[i] for i in members)}")
        if self.is_answered() is False:
            parts.append("no answer")
        return "; ".join(parts)

    def ranked(self) -> list[tuple[int, str, float]]:
        """Return class index, label and value, sorted by raw value, largest first.

        Raw values are used because different ones can round to the same probability.
        """
        order = sorted(range(len(self.values)), key=lambda i: (-self.raw[i], i))
        return [(i, self.labels[i], float(self.values[i])) for i in order]

    def decided(self) -> tuple[int, ...] | None:
        """Return the classes chosen by the fitted thresholds; None without thresholds."""
        if self.point is None or not self.point.thresholds:
            return None
        row = self.raw[None]
        if self.output.kind == "decisions":
            return tuple(decision_rule.predict_decisions(row, self.point)[0].nonzero()[0].tolist())
        predicted_class = decision_rule.predict_classes(self.output.activation, row, self.point)
        return (int(predicted_class[0]),)

    def prediction_set(self) -> tuple[int, ...] | None:
        """Return the classes of the fitted prediction set; None without fitted sets."""
        if self.point is None or self.point.sets is None:
            return None
        is_member = prediction_sets.find_sets(self.raw[None], self.point.sets.gaps)[0]
        return tuple(is_member.nonzero()[0].tolist())

    def is_answered(self) -> bool | None:
        """Return whether the fitted abstention answers this image; None without one."""
        if self.point is None or self.point.abstention is None:
            return None
        margin = self.point.abstention.margin
        return bool(prediction_sets.find_answered(self.raw[None], margin)[0])


class ImagePredictions(dict[str, Prediction], ValueView):
    """Predictions for one image, `name`, by output name."""

    def __init__(self, name: str, outputs: Mapping[str, Prediction]) -> None:
        super().__init__(outputs)
        self.name = name

    __repr__ = ValueView.__repr__

    def _summarize(self) -> Iterator[str]:
        outputs = self.values()
        if len(outputs) == 1:
            yield from (f"{self.name}: {prediction.describe()}" for prediction in outputs)
            return
        yield self.name
        yield from (
            f"  {prediction.output.name}: {prediction.describe()}" for prediction in outputs
        )


class Predictions(tuple[ImagePredictions, ...], ValueView):
    """Predictions for images, in their order; `notices` are reasons to doubt them."""

    notices: tuple[str, ...]

    def __new__(
        cls, images: Iterable[ImagePredictions], notices: tuple[str, ...] = ()
    ) -> "Predictions":
        """Create the predictions of images."""
        predictions = super().__new__(cls, images)
        predictions.notices = notices
        return predictions

    __repr__ = ValueView.__repr__

    def _summarize(self) -> Iterator[str]:
        yield f"Predictions for {count(len(self), 'image')}"
        if self.notices:
            yield f"warning: {'; '.join(self.notices)}"
        # A warning takes the line of one image.
        shown_count = MAX_SHOWN_IMAGES - bool(self.notices)
        for image in self[:shown_count]:
            outputs = "; ".join(
                f"{prediction.output.name}: {prediction.describe()}"
                for prediction in image.values()
            )
            name = (
                image.name
                if len(image.name) <= MAX_NAME_LENGTH
                else f"...{image.name[-MAX_NAME_LENGTH:]}"
            )
            yield f"{name}: {outputs}"
        if len(self) > shown_count:
            yield f"and {count(len(self) - shown_count, 'more image')}"


def predict_by_artifact(
    bundle: Bundle, device: Device, images: Sequence[NDArray[np.uint8]]
) -> Iterator[Mapping[str, Prediction]]:
    """Yield the predictions of a bundle's artifact for each image, by output name.

    Args:
        bundle: The bundle.
        device: Its target.
        images: uint8 (height, width, 3) each.

    Raises:
        UserError: As for `artifact_runs.run`.
    """
    bundle_manifest = bundle.manifest
    for raw in artifact_runs.run(bundle, device, images):
        yield {
            output.name: _read_output(
                output, raw[output.name], bundle_manifest.find_operating_point(output.name)
            )
            for output in bundle_manifest.outputs
        }


def predict_by_reference(
    model: Model, images: Sequence[NDArray[np.uint8]]
) -> Iterator[Mapping[str, Prediction]]:
    """Yield the predictions of a network as written, in float, by the reference executor.

    Args:
        model: The float model, with images as its input.
        images: uint8 (height, width, 3) each, in a size that fits the network.
    """
    (network_input,) = model.graph.inputs
    contract = network_input.preprocess
    assert contract is not None
    channels, height, width = network_input.type.shape
    run, outputs = float_program.create_runner(model), manifest.build_output_contracts(model.graph)
    for image in images:
        levels = preprocess.prepare_pixels(contract, image, (channels, height, width))
        raw = run(preprocess.normalize(contract, levels))
        yield {output.name: _read_output(output, raw[output.name], None) for output in outputs}


def _read_output(
    output: OutputContract, raw: NDArray[np.float32], point: OperatingPoint | None
) -> Prediction:
    activated = apply_activation(output.activation, raw, point.temperature if point else 1.0)
    return Prediction(output, raw, activated, point)
