"""What `tcc plot` draws: networks, bundles and images, as the command line names them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver import evaluation_run, run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec, bundle_folder, choose
from tcc.compiler.driver.evaluation_run import ImageWish
from tcc.compiler.driver.weights_and_images import take, weights_file
from tcc.compiler.support import option_needs
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import UserError, fail, typed, whole_file
from tcc.compiler.support.option_needs import SOME_BUNDLE, SPECS
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    from tcc.compiler.bundle.manifest import OutputContract
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.data.split_file import RunSplit
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.labelled_images import LabelledImages
    from tcc.compiler.plots.pictures import PlottedNetwork


OVERLAYS = 16
"""Images of a data set that are drawn in one picture, where nobody says how many."""


@dataclass(frozen=True)
class PlotRequest:
    """What is drawn, as the command line says it: networks and images are its `words`."""

    report: Report
    words: tuple[str, ...]
    data: Path | None
    weights: Path | None
    seed: int | None
    settings: Sequence[str] | None
    split: str | None
    trust: bool
    most: int | None
    layer: str | None
    shown: str | None
    calibration: Path | None
    tsne_seed: int
    image: Path | None

    @property
    def spec(self) -> str | None:
        """The spec, or the one bundle; None for the project's."""
        return self.words[0] if self.words else None

    @property
    def others(self) -> tuple[Path, ...]:
        """What is named behind the spec: images, or bundles to set beside it."""
        return (*map(Path, self.words[1:]), *([self.image] if self.image else []))

    @cached_property
    def chosen(self) -> ChosenSpec:
        """The spec."""
        return choose(self.spec, self.settings)

    @property
    def weights_file(self) -> Path | None:
        """The file of its weights; None for random or the zoo's."""
        return weights_file(self.chosen, self.weights, self.seed)

    @property
    def where(self) -> Path | None:
        """Where the images lie: as the command line says, or the project."""
        from tcc.compiler.support import project_file

        return self.data or project_file.find(Path()).data

    def wish(self, split: "RunSplit | None", origin: str) -> ImageWish:
        """Return which labelled images are meant.

        Args:
            split: That of the run which the weights are from, if one is known.
            origin: Where the weights are from.

        Raises:
            UserError: It is not said where they lie (E0616).
        """
        if self.where is None:
            raise _no_images()
        learned = run_splits.is_unknown(self.split, origin)
        return ImageWish(self.where, split, None, fits=False, learned=learned)


@dataclass(frozen=True)
class JudgedNetwork:
    """What a spec or a bundle gave, what it is called, and what must not be missed about it."""

    evaluated: "Evaluated"
    name: str
    notice: str | None


def network(request: PlotRequest, what: str, bundles: Sequence[Path] = ()) -> "PlottedNetwork":
    """Return the spec with its weights.

    Args:
        request: What was typed.
        what: What looks into it, for errors.
        bundles: Those that it is compared with.

    Raises:
        UserError: It is a bundle, which has no layers to look into (E1285).
    """
    from tcc.compiler.plots.pictures import PlottedNetwork

    folder = bundle_folder(request.spec)
    if folder:
        message = f"{what} looks into the layers of a spec, and this is a bundle"
        help = "name the spec that it was built from, with the same --weights"
        raise fail("E1285", message, whole_file(str(folder)), help=help)
    option_needs.require({SOME_BUNDLE: bool(bundles)})
    chosen = request.chosen
    return PlottedNetwork(chosen.spec, take(request.report, chosen, request.weights, request.seed))


def images(request: PlotRequest, side: str) -> "DataSet":
    """Return the images of a side that are named, or the project's.

    Args:
        request: What was typed.
        side: `train`, to calibrate with, or `test`, to be drawn.

    Raises:
        UserError: There are none (E0616), they are no data set, or not the run's (E1218, E1219).
    """
    from tcc.compiler.data.dataset import read

    report, where = request.report, request.where
    if where is None:
        raise _no_images()
    split = run_splits.of_weights(request.split, request.weights_file)
    use = {"train": "calibrated with", "test": "drawn of"}[side]
    if split:
        return run_splits.images(report, where, split, side, use)
    place = run_splits.folder(where, side)
    if place != where:
        report.note(f"{use} {place}")
    found = read(place)
    report.warnings(found.warnings)
    return found


def _no_images() -> UserError:
    return fail("E0616", "draw which images?", typed("--data"), help="give images with --data")


def labelled(request: PlotRequest, net: "PlottedNetwork", most: int | None) -> "LabelledImages":
    """Return images with classes, the first `most` by digest, of those that would judge it.

    Args:
        request: What was typed.
        net: The network, or bundle, that they are for.
        most: How many; None for all.

    Raises:
        UserError: They are no labelled data set for the network.
    """
    from tcc.compiler.bundle import manifest

    split = run_splits.of_weights(request.split, request.weights_file)
    wish = request.wish(split, net.given.origin.origin)
    return _labelled(request, manifest.results(net.spec.graph), most, wish)


def _labelled(
    request: PlotRequest,
    outputs: "Sequence[OutputContract]",
    most: int | None,
    wish: ImageWish,
) -> "LabelledImages":
    found, _ = evaluation_run.read_labelled(request.report, Stages(), wish, outputs)
    count = len(found.data)
    if most is not None and count > most:
        request.report.note(f"{most:,} of {count:,} images are drawn, the first by digest")
        # By digest and not by name: names often begin with the class, and folders' order is a
        # machine's.
        found = replace(found, data=found.data.first(most), sets=found.sets[:most])
    return found


def judged(request: PlotRequest, most: int | None) -> JudgedNetwork:
    """Return what a spec in floats, or a bundle's own artifact, gives for labelled images.

    Raises:
        UserError: They are no labelled data set for it.
    """
    from tcc.compiler.driver import evaluation

    folder = bundle_folder(request.spec)
    option_needs.require({SPECS: folder is None, SOME_BUNDLE: folder is not None})
    report = request.report
    with report.stages() as stages:
        if folder is None:
            net = network(request, "")
            given = labelled(request, net, most)
            found = evaluation.by_reference(net.model, given, stages)
            return JudgedNetwork(found, net.spec.name, net.notice)
        from tcc.compiler.support import project_file

        bundle, device = trusted_bundle.load(folder, trust=request.trust)
        about = bundle.manifest
        if about.weights.notice:
            report.notice(about.weights.notice)
        own = project_file.find(Path()).weights
        split = run_splits.of_bundle(request.split, about.weights.digest, own)
        wish = request.wish(split, about.weights.origin)
        given = _labelled(request, about.outputs, most, wish)
        point = about.operating_point(given.output.name)
        made = evaluation.by_artifact(bundle, device, given, stages, point)
        name = f"{about.model.name} {about.target} {about.precision}"
        return JudgedNetwork(made, name, about.weights.notice)


def of_form(
    request: PlotRequest, net: "PlottedNetwork", folder: Path, given: "LabelledImages"
) -> "Evaluated":
    """Return what a bundle's artifact gives.

    Args:
        request: What was typed.
        net: The network in floats.
        folder: The bundle.
        given: Images with classes.

    Raises:
        UserError: It is of another spec or other weights (E1285).
    """
    from tcc.compiler.driver import evaluation

    found, device = trusted_bundle.load(folder, trust=request.trust)
    about = found.manifest
    # Points of two networks in one picture would look like the loss of integers.
    unlike = "spec" if about.model.spec != net.spec.digest else "weights"
    if unlike == "spec" or about.weights.digest != net.given.origin.digest:
        message = f"this bundle is of another {unlike.removesuffix('s')} than the spec"
        label = "give the same parameters and weights as it was built with"
        raise fail("E1285", message, whole_file(str(folder)), label=label)
    with request.report.stages() as stages:
        return evaluation.by_artifact(found, device, given, stages)


def drawn_images(request: PlotRequest) -> "DataSet":
    """Return the images to draw on: those that are named, or the first of a data set's `test`.

    Raises:
        UserError: There are none, or one cannot be read.
    """
    if request.others:
        return pictures_of(request.others).first(request.most)
    return images(request, "test").first(request.most or OVERLAYS)


def pictures_of(paths: Sequence[Path]) -> "DataSet":
    """Return images as a data set, in the order in which they are named.

    Raises:
        UserError: There are none, or one cannot be read.
    """
    import hashlib

    from tcc.compiler.data import image_files
    from tcc.compiler.data.dataset import DataSet, Item
    from tcc.compiler.support.image_folders import listing

    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = listing(path)
        if not found.images:
            raise UserError((found.nothing("E0701", path),))
        files += found.images
    items = tuple(
        Item(hashlib.sha256(image_files.contents(file)).hexdigest(), file) for file in files
    )
    return DataSet(items)
