"""What `tcc calibrate` does beside the scales: methods, refusals, and what a package takes.

For a target whose own tool calibrates too, that is the archive of images that the tool gets, and
what integers of our own lose, which foretells what the tool's lose.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.bundle import bundle_folder
from tcc.compiler.bundle.manifest_checks import Known
from tcc.compiler.bundle.signature_check import SignaturePolicy
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.driver import floor_evidence, int8_program, pipeline
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.accuracy_bounds import Accuracy
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.target import LEAST
from tcc.compiler.quant import calibration_document
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.methods import METHODS
from tcc.compiler.quant.methods.method import Method
from tcc.compiler.reference.accuracy_floor import ENOUGH, Qualities
from tcc.compiler.support.console import Stages
from tcc.compiler.support.diagnostics import fail, typed, whole_file

if TYPE_CHECKING:
    from tcc.compiler.figures.scene import Bar
    from tcc.compiler.ir.backend import Packager
    from tcc.compiler.ir.target import Target
    from tcc.compiler.quant.program.float_comparison import FloatComparison


WORST = 10
"""Layers that are listed."""


@dataclass(frozen=True)
class PackageData:
    """The files that were written, how many inputs the archive has, and what integers lose."""

    archive: Path
    picture: Path | None
    inputs: int
    comparison: "FloatComparison"
    bars: "tuple[Bar, ...]"

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        from dataclasses import asdict

        return {
            "archive": str(self.archive),
            "inputs": self.inputs,
            "picture": self.picture and str(self.picture),
            "threshold": LEAST,
            "cosines": {each.name: each.value for each in self.bars},
            "layers": [asdict(each) for each in self.comparison.layers],
        }


@dataclass(frozen=True)
class CalibratedPackage:
    """What the package of a calibration is for, and made of."""

    backend: "Packager"
    target: "Target"
    spec: "Spec"
    given: "WeightSource"
    data: "DataSet"
    document: "CalibrationDocument"

    def write(self, path: Path, stages: Stages) -> PackageData:
        """Write the archive and the picture beside a calibration file.

        Args:
            path: The calibration file.
            stages: Told of each stage.
        """
        from tcc.compiler.driver import build_plan, int8_program
        from tcc.compiler.figures.scene import Bar
        from tcc.compiler.support import atomic_files

        found = int8_program.compared(self.spec, self.given, self.document, self.data, stages)
        # The tool calibrates with what ours learnt from: the images held out judge both.
        learn, _ = self.document.data.parts(self.data)
        source = build_plan.sampled(self.spec.graph.inputs[0])
        tensors = (learn.tensor(index, source) for index in range(len(learn)))
        archive, inputs = self.backend.calibration_data(self.target, source, tensors)
        several = len(found.quality) > 1
        # Without the name of the images' folder: the same contents give the same picture.
        title = self.spec.name
        bars = tuple(
            Bar(f"{title}, {output}" if several else title, one.cosine)
            for output, one in found.quality.items()
            if one.cosine is not None
        )
        tar, picture = (
            path.with_name(f"{path.stem}.{end}") for end in ("images.tar", "cosine.svg")
        )
        atomic_files.write_file(tar, archive)
        if not bars:
            return PackageData(tar, None, inputs, found, ())
        heading = f"cosine of integers and floats, {self.target.name}"
        atomic_files.write_file(picture, draw_bars(picture, heading, bars))
        return PackageData(tar, picture, inputs, found, bars)


def draw_bars(path: Path, heading: str, bars: "Sequence[Bar]") -> bytes:
    """Return the picture of bars for a file, whose suffix says which kind it is.

    Args:
        path: The file, `.svg` or any other for PNG.
        heading: The picture's title.
        bars: A cosine each, with its name.

    Returns:
        The file's bytes.

    Raises:
        MissingTool: matplotlib is not installed, which draws PNG.
    """
    from tcc.compiler.figures import export, svg
    from tcc.compiler.figures.scene import bar_chart

    scene = bar_chart(heading, bars, LEAST)
    if path.suffix == ".svg":
        return svg.render_scene(scene, heading).encode()
    return export.render_png(scene, heading)


def known_method(name: str | None, *, guard: bool = True) -> Method:
    """Return the method of a name, or the default, with or without its guard.

    Raises:
        UserError: There is none of that name (E0617), or nothing guards it (E0601).
    """
    from tcc.compiler.quant.calibrate import known

    found = known(name, typed(f"--method {name}"))
    if guard:
        return found
    own = found.unguarded()
    if own is None:
        guarded = ", ".join(each.name for each in METHODS if each.unguarded())
        message = f"min-max does not guard `{found.name}`, so that there is no guard to leave out"
        help = f"--no-guard is for {guarded}"
        raise fail("E0601", message, typed("--no-guard"), help=help)
    return own


def refused(
    spec: Spec, given: WeightSource, document: CalibrationDocument, images: DataSet
) -> tuple[str, ...]:
    """Return why a build would refuse a fresh calibration, in words; nothing where it would not.

    Images that it had not learnt from judge, as far as there are enough.

    Args:
        spec: The network, with what it asks of integers.
        given: Its weights.
        document: The calibration.
        images: Those that it was made with.
    """
    minimum, (learn, judge) = floor_evidence.floor(spec, Accuracy()), document.data.parts(images)
    different = floor_evidence.split_images(learn, judge, mixed=False).different
    few = (
        (f"{different} different images judge them, and it takes {ENOUGH} or `--allow-few`",)
        if different < ENOUGH and minimum.needs_images(o.meaning for o in spec.graph.outputs)
        else ()
    )
    model = pipeline.ready(spec, given)
    losses = floor_evidence.read_stated_losses(document, model)
    if bounds := floor_evidence.compute_calibration_bounds(document, model):
        quality = {name: loss.quality for name, loss in losses.items() if loss.quality}
        return (*minimum.broken(quality, bounds), *few)
    # Few images state nothing, nor do outputs that are no numbers.
    comparison = int8_program.compared(spec, given, document, images)
    return (*minimum.broken(comparison.quality, comparison.bounds), *few)


@dataclass(frozen=True, slots=True)
class StoredCosine:
    """The mean cosine of an output's integers and floats, over images of one data set.

    `data` is the digest of that set, `target` what was calibrated or built for.
    """

    network: str
    target: str
    data: str
    output: str
    cosine: float


def read_cosines(path: Path, known: Known, policy: SignaturePolicy) -> tuple[StoredCosine, ...]:
    """Return the cosines of a calibration file, or of a bundle.

    Args:
        path: The file, or the bundle's folder.
        known: Says what the precisions of targets are.
        policy: Which signatures of bundles are taken.

    Raises:
        UserError: It is neither, or is damaged (E0603, E0620 to E0623, E0730), or holds no cosine
            (E1280).
    """
    found = tuple(_bundle_cosines(path, known, policy) if path.is_dir() else _file_cosines(path))
    if found:
        return found
    message = "this says nothing of any cosine of integers and floats"
    help = "calibrate with more images, some of which are held out, or give a bundle of integers"
    raise fail("E1280", message, whole_file(str(path)), help=help)


def _file_cosines(path: Path) -> Iterator[StoredCosine]:
    about = calibration_document.read(path)
    judged = about.judged.get(about.used, {})
    yield from _list_cosines(about.model.name, about.target, about.data.digest, judged)


def _bundle_cosines(folder: Path, known: Known, policy: SignaturePolicy) -> Iterator[StoredCosine]:
    about = bundle_folder.read(folder, known, policy).manifest
    found = about.calibration
    if found and found.measured:
        yield from _list_cosines(about.model.name, about.target, found.data, found.measured.outputs)


def _list_cosines(
    network: str, target: str, data: str, judged: Qualities
) -> Iterator[StoredCosine]:
    for output, quality in judged.items():
        if quality.cosine is not None:
            yield StoredCosine(network, target, data, output, quality.cosine)
