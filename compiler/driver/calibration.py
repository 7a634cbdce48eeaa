"""Parts of `tcc calibrate` other than the scales: methods, floor checks, vendor packages.

A target with a vendor toolchain calibrates with its own tool. For it, tcc writes an archive of the
images, and measures the quantization error of its own int8 model as a prediction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.bundle import bundle_folder
from tcc.compiler.bundle.manifest_checks import PrecisionLookup
from tcc.compiler.bundle.signature_check import SignaturePolicy
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.driver import floor_evidence, int8_program, pipeline
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.accuracy_bounds import Accuracy
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.target import MIN_COSINE
from tcc.compiler.quant import calibration_document
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.methods import METHODS
from tcc.compiler.quant.methods.method import Method
from tcc.compiler.reference.accuracy_floor import MIN_IMAGES, Qualities
from tcc.compiler.support.console import Stages
from tcc.compiler.support.diagnostics import fail, make_command_span, make_file_span

if TYPE_CHECKING:
    from tcc.compiler.figures.scene import Bar
    from tcc.compiler.ir.backend import Packager
    from tcc.compiler.ir.target import Target
    from tcc.compiler.quant.program.float_comparison import FloatComparison


MAX_LISTED_LAYERS = 10
"""Most layers that are listed."""


@dataclass(frozen=True)
class PackageData:
    """The written files, the number of inputs in the archive, and the quantization error."""

    archive: Path
    figure_path: Path | None
    inputs: int
    comparison: "FloatComparison"
    bars: "tuple[Bar, ...]"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        from dataclasses import asdict

        return {
            "archive": str(self.archive),
            "inputs": self.inputs,
            "picture": self.figure_path and str(self.figure_path),
            "threshold": MIN_COSINE,
            "cosines": {record.name: record.value for record in self.bars},
            "layers": [asdict(record) for record in self.comparison.layers],
        }


@dataclass(frozen=True)
class CalibratedPackage:
    """The target of a calibration package, and its inputs."""

    backend: "Packager"
    target: "Target"
    spec: "Spec"
    weight_source: "WeightSource"
    dataset: "DataSet"
    document: "CalibrationDocument"

    def write(self, path: Path, stages: Stages) -> PackageData:
        """Write the archive and the figure next to a calibration file.

        Args:
            path: The calibration file.
            stages: Receives each stage.
        """
        from tcc.compiler.driver import build_plan, int8_program
        from tcc.compiler.figures.scene import Bar
        from tcc.compiler.support import atomic_files

        comparison = int8_program.compare_with_floats(
            self.spec, self.weight_source, self.document, self.dataset, stages
        )
        # The tool gets our fit set; the held-out images evaluate both.
        fit_images, _ = self.document.data.split_images(self.dataset)
        network_input = build_plan.to_pixel_input(self.spec.graph.inputs[0])
        tensors = (fit_images.read_tensor(index, network_input) for index in range(len(fit_images)))
        archive, inputs = self.backend.pack_calibration_data(self.target, network_input, tensors)
        several = len(comparison.quality) > 1
        # Without the name of the image folder: the same content gives the same figure.
        title = self.spec.name
        bars = tuple(
            Bar(f"{title}, {output}" if several else title, quality.cosine)
            for output, quality in comparison.quality.items()
            if quality.cosine is not None
        )
        archive_path, figure_path = (
            path.with_name(f"{path.stem}.{end}") for end in ("images.tar", "cosine.svg")
        )
        atomic_files.write_file(archive_path, archive)
        if not bars:
            return PackageData(archive_path, None, inputs, comparison, ())
        heading = f"cosine of int8 and fp32 outputs, {self.target.name}"
        atomic_files.write_file(figure_path, draw_bars(figure_path, heading, bars))
        return PackageData(archive_path, figure_path, inputs, comparison, bars)


def draw_bars(path: Path, heading: str, bars: "Sequence[Bar]") -> bytes:
    """Return a bar chart as a file; the suffix of the path selects the format.

    Args:
        path: The file, `.svg` or any other suffix for PNG.
        heading: Title of the chart.
        bars: Cosines, each with its name.

    Returns:
        The file's bytes.

    Raises:
        MissingTool: matplotlib, which draws PNG, is not installed.
    """
    from tcc.compiler.figures import export, svg
    from tcc.compiler.figures.scene import build_bar_chart

    scene = build_bar_chart(heading, bars, MIN_COSINE)
    if path.suffix == ".svg":
        return svg.render_scene(scene, heading).encode()
    return export.render_png(scene, heading)


def find_method(name: str | None, *, guard: bool = True) -> Method:
    """Return the calibration method with a name, or the default, with or without its guard.

    Raises:
        UserError: There is no such method (E0617), or it has no guard (E0601).
    """
    from tcc.compiler.quant.calibrate import find_method

    method = find_method(name, make_command_span(f"--method {name}"))
    if guard:
        return method
    unguarded = method.remove_guard()
    if unguarded is None:
        guarded = ", ".join(candidate.name for candidate in METHODS if candidate.remove_guard())
        message = f"`{method.name}` has no min-max guard to turn off"
        help = f"--no-guard applies to {guarded}"
        raise fail("E0601", message, make_command_span("--no-guard"), help=help)
    return unguarded


def find_refusals(
    spec: Spec, weight_source: WeightSource, document: CalibrationDocument, images: DataSet
) -> tuple[str, ...]:
    """Return why a build would refuse a new calibration; empty if it would not.

    Held-out images are used, if there are enough.

    Args:
        spec: The network, with its accuracy bounds.
        weight_source: Its weights.
        document: The calibration.
        images: The images that it was made with.
    """
    minimum, (fit_images, held_out_images) = (
        floor_evidence.resolve_floor(spec, Accuracy()),
        document.data.split_images(images),
    )
    different = floor_evidence.split_images(
        fit_images, held_out_images, mixed=False
    ).different_count
    few = (
        (f"only {different} different images: the floor needs {MIN_IMAGES}, or `--allow-few`",)
        if different < MIN_IMAGES and minimum.needs_images(o.meaning for o in spec.graph.outputs)
        else ()
    )
    model = pipeline.lower_for_int8(spec, weight_source)
    losses = floor_evidence.read_stated_losses(document, model)
    if bounds := floor_evidence.compute_calibration_bounds(document, model):
        quality = {name: loss.quality for name, loss in losses.items() if loss.quality}
        return (*minimum.find_violations(quality, bounds), *few)
    # The document states nothing for few images, nor for outputs that are not numbers.
    comparison = int8_program.compare_with_floats(spec, weight_source, document, images)
    return (*minimum.find_violations(comparison.quality, comparison.bounds), *few)


@dataclass(frozen=True, slots=True)
class StoredCosine:
    """Mean cosine between int8 and fp32 values of an output, over images of one dataset.

    `data` is the dataset's digest, `target` the target of the calibration or bundle.
    """

    network: str
    target: str
    data: str
    output: str
    cosine: float


def read_cosines(
    path: Path, precision_lookup: PrecisionLookup, policy: SignaturePolicy
) -> tuple[StoredCosine, ...]:
    """Return the cosines in a calibration file or a bundle.

    Args:
        path: The file, or the bundle's folder.
        precision_lookup: Returns the precision of a target.
        policy: Which bundle signatures are accepted.

    Raises:
        UserError: It is neither, or is damaged (E0603, E0620 to E0623, E0730), or has no cosine
            (E1280).
    """
    cosines = tuple(
        _read_bundle_cosines(path, precision_lookup, policy)
        if path.is_dir()
        else _read_file_cosines(path)
    )
    if cosines:
        return cosines
    message = "no cosine of int8 and fp32 outputs is stored here"
    help = "calibrate with more images, so that some are held out, or give an int8 bundle"
    raise fail("E1280", message, make_file_span(str(path)), help=help)


def _read_file_cosines(path: Path) -> Iterator[StoredCosine]:
    document = calibration_document.read_document(path)
    qualities = document.judged.get(document.used, {})
    yield from _list_cosines(document.model.name, document.target, document.data.digest, qualities)


def _read_bundle_cosines(
    folder: Path, precision_lookup: PrecisionLookup, policy: SignaturePolicy
) -> Iterator[StoredCosine]:
    manifest = bundle_folder.read_bundle(folder, precision_lookup, policy).manifest
    calibration = manifest.calibration
    if calibration and calibration.measured:
        yield from _list_cosines(
            manifest.model.name, manifest.target, calibration.data, calibration.measured.outputs
        )


def _list_cosines(
    network: str, target: str, data: str, qualities: Qualities
) -> Iterator[StoredCosine]:
    for output, quality in qualities.items():
        if quality.cosine is not None:
            yield StoredCosine(network, target, data, output, quality.cosine)
