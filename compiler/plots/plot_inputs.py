"""What `tcc plot` draws: networks, bundles and images, as the command line names them."""

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
    from tcc.compiler.plots.network_plots import PlottedNetwork


DEFAULT_OVERLAYS = 16
"""Images of a data set that are drawn in one picture, where nobody says how many."""


@dataclass(frozen=True)
class PlotRequest:
    """What is drawn, as the command line says it: networks and images are its `arguments`."""

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
        """The spec, or the one bundle; None for the project's."""
        return self.arguments[0] if self.arguments else None

    @property
    def extra_paths(self) -> tuple[Path, ...]:
        """What is named behind the spec: images, or bundles to set beside it."""
        return (*map(Path, self.arguments[1:]), *([self.image] if self.image else []))

    @cached_property
    def chosen_spec(self) -> ChosenSpec:
        """The spec."""
        return choose_spec(self.spec, self.settings)

    @property
    def weights_file(self) -> Path | None:
        """The file of its weights; None for random or the zoo's."""
        return find_weights_file(self.chosen_spec, self.weights, self.seed)

    @property
    def images_path(self) -> Path | None:
        """Where the images lie: as the command line says, or the project."""
        from tcc.compiler.support import project_file

        return self.data_path or project_file.find_project(Path()).data

    def build_image_request(self, split: "RunSplit | None", origin: str) -> ImageSelection:
        """Return which labelled images are meant.

        Args:
            split: That of the run which the weights are from, if one is known.
            origin: Where the weights are from.

        Raises:
            UserError: It is not said where they lie (E0616).
        """
        if self.images_path is None:
            raise _build_missing_images_error()
        learned = run_splits.is_unknown(self.split, origin)
        return ImageSelection(self.images_path, split, None, fits=False, learned=learned)


@dataclass(frozen=True)
class EvaluatedNetwork:
    """What a spec or a bundle gave, what it is called, and what must not be missed about it."""

    evaluated: "Evaluated"
    name: str
    notice: str | None


def load_network(
    request: PlotRequest, purpose: str, bundles: Sequence[Path] = ()
) -> "PlottedNetwork":
    """Return the spec with its weights.

    Args:
        request: What was typed.
        purpose: What looks into it, for errors.
        bundles: Those that it is compared with.

    Raises:
        UserError: It is a bundle, which has no layers to look into (E1285).
    """
    from tcc.compiler.plots.network_plots import PlottedNetwork

    folder = find_bundle_folder(request.spec)
    if folder:
        message = f"{purpose} looks into the layers of a spec, and this is a bundle"
        help = "name the spec that it was built from, with the same --weights"
        raise fail("E1285", message, make_file_span(str(folder)), help=help)
    option_requirements.set_facts({SOME_BUNDLE: bool(bundles)})
    chosen_spec = request.chosen_spec
    return PlottedNetwork(
        chosen_spec.spec, load_weights(request.report, chosen_spec, request.weights, request.seed)
    )


def load_images(request: PlotRequest, split_name: str) -> "DataSet":
    """Return the images of a side that are named, or the project's.

    Args:
        request: What was typed.
        split_name: `train`, to calibrate with, or `test`, to be drawn.

    Raises:
        UserError: There are none (E0616), they are no data set, or not the run's (E1218, E1219).
    """
    from tcc.compiler.data.dataset import read_dataset

    report, images_path = request.report, request.images_path
    if images_path is None:
        raise _build_missing_images_error()
    split = run_splits.find_weights_split(request.split, request.weights_file)
    usage = {"train": "calibrated with", "test": "drawn of"}[split_name]
    if split:
        return run_splits.read_side_images(report, images_path, split, split_name, usage)
    split_folder = run_splits.find_side_folder(images_path, split_name)
    if split_folder != images_path:
        report.print_note(f"{usage} {split_folder}")
    image_set = read_dataset(split_folder)
    report.warn_grouped(image_set.warnings)
    return image_set


def _build_missing_images_error() -> UserError:
    return fail(
        "E0616", "draw which images?", make_command_span("--data"), help="give images with --data"
    )


def load_labelled_images(
    request: PlotRequest, net: "PlottedNetwork", max_images: int | None
) -> "LabelledImages":
    """Return images with classes, the first `max_images` by digest, of those that would judge it.

    Args:
        request: What was typed.
        net: The network, or bundle, that they are for.
        max_images: How many; None for all.

    Raises:
        UserError: They are no labelled data set for the network.
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
            f"{max_images:,} of {count:,} images are drawn, the first by digest"
        )
        # By digest and not by name: names often begin with the class, and folders' order is a
        # machine's.
        labelled_images = replace(
            labelled_images,
            dataset=labelled_images.dataset.select_first(max_images),
            class_sets=labelled_images.class_sets[:max_images],
        )
    return labelled_images


def evaluate_network(request: PlotRequest, max_images: int | None) -> EvaluatedNetwork:
    """Return what a spec in floats, or a bundle's own artifact, gives for labelled images.

    Raises:
        UserError: They are no labelled data set for it.
    """
    from tcc.compiler.driver import evaluation

    folder = find_bundle_folder(request.spec)
    option_requirements.set_facts({SPECS: folder is None, SOME_BUNDLE: folder is not None})
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
        return EvaluatedNetwork(artifact_evaluation, name, manifest.weights.notice)


def evaluate_bundle(
    request: PlotRequest, net: "PlottedNetwork", folder: Path, labelled_images: "LabelledImages"
) -> "Evaluated":
    """Return what a bundle's artifact gives.

    Args:
        request: What was typed.
        net: The network in floats.
        folder: The bundle.
        labelled_images: Images with classes.

    Raises:
        UserError: It is of another spec or other weights (E1285).
    """
    from tcc.compiler.driver import evaluation

    bundle, device = trusted_bundle.load(folder, trust=request.trust)
    manifest = bundle.manifest
    # Points of two networks in one picture would look like the loss of integers.
    mismatch = "spec" if manifest.model.spec != net.spec.digest else "weights"
    if mismatch == "spec" or manifest.weights.digest != net.weight_source.origin.digest:
        message = f"this bundle is of another {mismatch.removesuffix('s')} than the spec"
        label = "give the same parameters and weights as it was built with"
        raise fail("E1285", message, make_file_span(str(folder)), label=label)
    with request.report.track_stages() as stages:
        return evaluation.evaluate_artifact(bundle, device, labelled_images, stages)


def load_drawn_images(request: PlotRequest) -> "DataSet":
    """Return the images to draw on: those that are named, or the first of a data set's `test`.

    Raises:
        UserError: There are none, or one cannot be read.
    """
    if request.extra_paths:
        return read_image_paths(request.extra_paths).select_first(request.max_images)
    return load_images(request, "test").select_first(request.max_images or DEFAULT_OVERLAYS)


def read_image_paths(paths: Sequence[Path]) -> "DataSet":
    """Return images as a data set, in the order in which they are named.

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
