"""What a training is asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.train.distributed import ALONE, World
from tcc.compiler.train.image_split import ImageSplit
from tcc.compiler.train.pixel_store import PixelStore
from tcc.compiler.train.recipe import Recipe


@dataclass(frozen=True, eq=False)
class TrainingRequest:
    """What to train, with what, and where to; `deadline` is a time of `time.monotonic`."""

    spec: Spec
    start: WeightSource
    recipe: Recipe
    split: ImageSplit
    stores: Mapping[str, PixelStore]
    folder: Path
    seed: int = 0
    threads: int = 1
    deadline: float | None = None
    world: World = ALONE
    tensorboard: bool = False
    qat: CalibrationDocument | None = None
