"""What `tcc calibrate` makes besides for a target whose own tool calibrates too.

That is the archive of images that the tool gets, and what integers of our own lose, which foretells
what the tool's lose: each layer's cosine, and the outputs' as a picture.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.cli import cosine_bars
from tcc.compiler.ir.tool_report import LEAST
from tcc.compiler.support.console import Report, Stages

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.figures.bar_chart import Bar
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.ir.backend import Packager
    from tcc.compiler.ir.target import Target
    from tcc.compiler.quant.calibration_document import CalibrationDocument
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
        from tcc.compiler.figures.bar_chart import Bar
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
            path.with_name(f"{path.stem}.{end}") for end in ("images.tar", "cosine.png")
        )
        atomic_files.write_file(tar, archive)
        if not bars:
            return PackageData(tar, None, inputs, found, ())
        heading = f"cosine of integers and floats, {self.target.name}"
        atomic_files.write_file(picture, cosine_bars.picture(picture, heading, bars))
        return PackageData(tar, picture, inputs, found, bars)


def say(report: Report, found: PackageData) -> None:
    """Print the bars and the layers that lose the most."""
    report.text(str(found.archive))
    report.text(f"  {found.inputs} of the images, as the network sees them, for the package")
    if found.picture:
        report.text(str(found.picture))
    cosine_bars.say(report, found.bars)
    layers = sorted(found.comparison.layers, key=lambda layer: layer.cosine)
    shown = layers if report.verbose else layers[:WORST]
    report.text("\nthe layers' cosines, the least first")
    report.table(
        ("layer", "op", "cosine", "steps off"),
        [(each.name, each.op, f"{each.cosine:.6f}", f"{each.error:.1f}") for each in shown],
    )
