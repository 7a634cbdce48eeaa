"""What `tcc calibrate` makes besides for a target whose own tool calibrates too.

That is the archive of images that the tool gets, and what integers of our own lose, which foretells
what the tool's lose: each layer's cosine, and the outputs' as a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.ir.tool_report import LEAST
from tcc.compiler.quant.methods import METHODS
from tcc.compiler.quant.methods.method import Method
from tcc.compiler.support.console import Stages
from tcc.compiler.support.diagnostics import fail, typed

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
    from tcc.compiler.figures.bar_chart import bar_chart

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
