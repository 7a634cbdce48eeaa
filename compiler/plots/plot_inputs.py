"""Inputs of `tcc plot`: networks, bundles and images from the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver import evaluation_run, run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec, choose_spec, find_bundle_folder
from tcc.compiler.driver.evaluation_run import ImageSelection
from tcc.compiler.driver.weights_and_images import find_weights_file, load_weights
from tcc.compiler.support import option_requirements
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import UserError, fail, make_command_span, make_file_span
from tcc.compiler.support.option_requirements import SOME_BUNDLE, SPECS
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    from tcc.compiler.bundle.manifest import OutputContract
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.data.split_file import RunSplit
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.labelled_images import LabelledImages
    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.plots.network_plots import PlottedNetwork


DEFAULT_OVERLAYS = 16
"""Images of a dataset in one plot, unless the user gives a number."""


@dataclass(frozen=True)
class PlotRequest:
    """The command line of `tcc plot`. Networks and images are its `arguments`."""

    report: Report
    arguments: tuple[str, ...]
    data_path: Path | None
    weights: Path | None
    seed: int | None
    settings: Sequence[str] | None
    split: str | None
    trust: bool
    max_images: int | None
    layer: str | None
    class_name: str | None
    calibration: Path | None
    tsne_seed: int
    image: Path | None

    @property
    def spec(self) -> str | None:
        """The spec or the bundle; None for the project's spec."""
        return self.arguments[0] if self.arguments else None

    @property
    def extra_paths(self) -> tuple[Path, ...]:
        """The arguments after the spec: images, or bundles to compare with it."""
        return (*map(Path, self.arguments[1:]), *([self.image] if self.image else []))

    @cached_property
    def chosen_spec(self) -> ChosenSpec:
        """The spec with its parameters."""
        return choose_spec(self.spec, self.settings)

    @property
    def weights_file(self) -> Path | None:
        """The weights file; None for random weights or the zoo's."""
        return find_weights_file(self.chosen_spec, self.weights, self.seed)

    @property
    def images_path(self) -> Path | None:
        """The image folder, from the command line or the project."""
        from tcc.compiler.support import project_file

        return self.data_path or project_file.find_project(Path()).data

    def build_image_request(self, split: "RunSplit | None", origin: str) -> ImageSelection:
        """Return the selection of labelled images.

        Args:
            split: The split of the training run that gave the weights, if known.
            origin: The origin of the weights.

        Raises:
            UserError: No image folder is given (E0616).
        """
        if self.images_path is None:
            raise _build_missing_images_error()
        learned = run_splits.is_unknown(self.split, origin)
        return ImageSelection(self.images_path, split, None, fits=False, learned=learned)


@dataclass(frozen=True)
class EvaluatedNetwork:
    """The evaluation of a spec or bundle, its name, and a warning to show with the plot.

    `point` is the bundle's operating point, if it has one.
    """

    evaluated: "Evaluated"
    name: str
    notice: str | None
    point: "OperatingPoint | None" = None


def load_network(
    request: PlotRequest, purpose: str, bundles: Sequence[Path] = ()
) -> "PlottedNetwork":
    """Return the spec with its weights.

    Args:
        request: The command line.
        purpose: The option or plot that needs the layers, for errors.
        bundles: The bundles to compare with.

    Raises:
        UserError: The argument is a bundle, and the plot needs a spec (E1285).
    """
    from tcc.compiler.plots.network_plots import PlottedNetwork

    folder = find_bundle_folder(request.spec)
    if folder:
        message = f"`{purpose}` needs the layers of a spec, and this is a bundle"
        help = "give the spec that the bundle was built from, with the same --weights"
        raise fail("E1285", message, make_file_span(str(folder)), help=help)
    option_requirements.report_facts({SOME_BUNDLE: bool(bundles)})
    chosen_spec = request.chosen_spec
    return PlottedNetwork(
        chosen_spec.spec, load_weights(request.report, chosen_spec, request.weights, request.seed)
    )


def load_images(request: PlotRequest, split_name: str) -> "DataSet":
    """Return the images of one split, from the command line or the project.

    Args:
        request: The command line.
        split_name: `train` for calibration, `test` for plots.

    Raises:
        UserError: No image folder is given (E0616), it is no dataset, or it is not the dataset of
            the training run (E1218, E1219).
    """
    from tcc.compiler.data.dataset import read_dataset

    report, images_path = request.report, request.images_path
    if images_path is None:
        raise _build_missing_images_error()
    split = run_splits.find_weights_split(request.split, request.weights_file)
    usage = {"train": "calibrated with", "test": "plot of"}[split_name]
    if split:
        return run_splits.read_side_images(report, images_path, split, split_name, usage)
    split_folder = run_splits.find_side_folder(images_path, split_name)
    if split_folder != images_path:
        report.print_note(f"{usage} {split_folder}")
    image_set = read_dataset(split_folder)
    report.warn_grouped(image_set.warnings)
    return image_set


def _build_missing_images_error() -> UserError:
    message = "this plot needs images, and none are given"
    help = "give an image folder with --data"
    return fail("E0616", message, make_command_span("--data"), help=help)


def load_labelled_images(
    request: PlotRequest, net: "PlottedNetwork", max_images: int | None
) -> "LabelledImages":
    """Return labelled images of the test split, the first `max_images` by digest.

    Args:
        request: The command line.
        net: The network that the images are for.
        max_images: Maximum number of images; None for all.

    Raises:
        UserError: The images are no labelled dataset for the network.
    """
    from tcc.compiler.bundle import manifest

    split = run_splits.find_weights_split(request.split, request.weights_file)
    image_request = request.build_image_request(split, net.weight_source.origin.origin)
    return _read_labelled_images(
        request, manifest.build_output_contracts(net.spec.graph), max_images, image_request
    )


def _read_labelled_images(
    request: PlotRequest,
    outputs: "Sequence[OutputContract]",
    max_images: int | None,
    image_request: ImageSelection,
) -> "LabelledImages":
    labelled_images, _ = evaluation_run.read_labelled_images(
        request.report, Stages(), image_request, outputs
    )
    count = len(labelled_images.dataset)
    if max_images is not None and count > max_images:
        request.report.print_note(
            f"the plot shows {max_images:,} of {count:,} images, chosen by file digest"
        )
        # Names often begin with the class, and the order of folders depends on the machine.
        labelled_images = replace(
            labelled_images,
            dataset=labelled_images.dataset.select_first(max_images),
            class_sets=labelled_images.class_sets[:max_images],
        )
    return labelled_images


def evaluate_network(request: PlotRequest, max_images: int | None) -> EvaluatedNetwork:
    """Evaluate the fp32 model of a spec, or a bundle's artifact, on labelled images.

    Raises:
        UserError: The images are no labelled dataset for the network.
    """
    from tcc.compiler.driver import evaluation

    folder = find_bundle_folder(request.spec)
    option_requirements.report_facts({SPECS: folder is None, SOME_BUNDLE: folder is not None})
    report = request.report
    with report.track_stages() as stages:
        if folder is None:
            net = load_network(request, "")
            labelled_images = load_labelled_images(request, net, max_images)
            float_evaluation = evaluation.evaluate_reference(net.model, labelled_images, stages)
            return EvaluatedNetwork(float_evaluation, net.spec.name, net.notice)
        from tcc.compiler.support import project_file

        bundle, device = trusted_bundle.load(folder, trust=request.trust)
        manifest = bundle.manifest
        if manifest.weights.notice:
            report.warn_text(manifest.weights.notice)
        project_weights = project_file.find_project(Path()).weights
        split = run_splits.find_bundle_split(
            request.split, manifest.weights.digest, project_weights
        )
        image_request = request.build_image_request(split, manifest.weights.origin)
        labelled_images = _read_labelled_images(
            request, manifest.outputs, max_images, image_request
        )
        point = manifest.find_operating_point(labelled_images.output.name)
        artifact_evaluation = evaluation.evaluate_artifact(
            bundle, device, labelled_images, stages, point
        )
        name = f"{manifest.model.name} {manifest.target} {manifest.precision}"
        return EvaluatedNetwork(artifact_evaluation, name, manifest.weights.notice, point)


def evaluate_bundle(
    request: PlotRequest, net: "PlottedNetwork", folder: Path, labelled_images: "LabelledImages"
) -> "Evaluated":
    """Evaluate a bundle's artifact.

    Args:
        request: The command line.
        net: The fp32 model.
        folder: The bundle.
        labelled_images: Labelled images.

    Raises:
        UserError: The bundle was built from another spec or other weights (E1285).
    """
    from tcc.compiler.driver import evaluation

    bundle, device = trusted_bundle.load(folder, trust=request.trust)
    manifest = bundle.manifest
    # Points of two different networks would look like quantization error.
    mismatch = "spec" if manifest.model.spec != net.spec.digest else "weights"
    if mismatch == "spec" or manifest.weights.digest != net.weight_source.origin.digest:
        message = {
            "spec": "this bundle was built from another spec or with other parameters",
            "weights": "this bundle was built with other weights than those of the spec here",
        }[mismatch]
        help = "give the spec, parameters and weights that the bundle was built with"
        raise fail("E1285", message, make_file_span(str(folder)), help=help)
    with request.report.track_stages() as stages:
        return evaluation.evaluate_artifact(bundle, device, labelled_images, stages)


def load_drawn_images(request: PlotRequest) -> "DataSet":
    """Return the images for overlays: those named, or the first of a dataset's test split.

    Raises:
        UserError: There are none, or one cannot be read.
    """
    if request.extra_paths:
        return read_image_paths(request.extra_paths).select_first(request.max_images)
    return load_images(request, "test").select_first(request.max_images or DEFAULT_OVERLAYS)


def read_image_paths(paths: Sequence[Path]) -> "DataSet":
    """Return images as a dataset, in the order of the paths.

    Raises:
        UserError: There are none, or one cannot be read.
    """
    import hashlib

    from tcc.compiler.data import image_files
    from tcc.compiler.data.dataset import DataSet, Item
    from tcc.compiler.support.image_folders import list_images

    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        image_listing = list_images(path)
        if not image_listing.images:
            raise UserError((image_listing.make_empty_error("E0701", path),))
        files += image_listing.images
    items = tuple(
        Item(hashlib.sha256(image_files.read_bytes(file)).hexdigest(), file) for file in files
    )
    return DataSet(items)
