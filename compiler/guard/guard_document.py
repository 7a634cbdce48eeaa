"""`guard.json`: the tables of a fitted guard, sealed. The records below define the format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from tcc.compiler.guard.picture_features import FEATURES
from tcc.compiler.guard.pixel_sums import MAX_SAMPLED_PIXELS, ROW_STEPS, count_sampled_pixels
from tcc.compiler.support.json_records import DocumentKind, OmitDefault, Record, Sha256
from tcc.compiler.support.value_views import ValueView, count

VERSION = 1
MAX_BYTES = 1 << 20
"""Largest file that is read; a guard takes about 30 KB."""
MAX_CHANNELS = 112
"""Most channels of a layer that a guard sums."""
MAX_DIRECTIONS = 8
RATE = 100_000
"""Cases between false alarms, at least, on average."""
CONFIDENCE = 0.99
"""Confidence over the guard images with which the promise holds."""
MIN_CASES = 50
"""Fewest guard images, or cases of these, that tables are made from."""
MAX_STEP = 4095
"""Largest e-value in Q8: (2^40 + 256) times it stays below 2^53."""

_Int16 = Annotated[int, Meta(ge=-(1 << 15), le=(1 << 15) - 1)]
_UInt16 = Annotated[int, Meta(ge=0, le=(1 << 16) - 1)]
_Int32 = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
_Shift = Annotated[int, Meta(ge=0, le=30)]
_PictureShift = Annotated[int, Meta(ge=4, le=30)]
_Step = Annotated[int, Meta(ge=0, le=MAX_STEP)]
_Count = Annotated[int, Meta(ge=1, le=1 << 40)]
_Features = Meta(min_length=len(FEATURES), max_length=len(FEATURES))
_Triangle = len(FEATURES) * (len(FEATURES) + 1) // 2


class PictureForm(Record, frozen=True):
    """The quadratic form of a picture's features: step 3 of the definition."""

    center: Annotated[tuple[_Int16, ...], _Features]
    rows: Annotated[tuple[_Int16, ...], Meta(min_length=_Triangle, max_length=_Triangle)]
    shifts: Annotated[tuple[_PictureShift, ...], _Features]


class LayerForm(Record, frozen=True):
    """The quadratic form of the channel sums of layer `tap`: step 4 of the definition.

    `shape` is that of the layer: (channels, height, width) or (features,). Every `stride`-th
    channel counts. `directions` has one row of int16 after the other. A value is a stored uint8
    minus `zero_point`, which is 128 for int8 layers.
    """

    tap: Annotated[str, Meta(min_length=1, max_length=1000)]
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=1 << 20)], ...], Meta(min_length=1, max_length=3)
    ]
    stride: Annotated[int, Meta(ge=1, le=1 << 14)]
    center: Annotated[tuple[_Int32, ...], Meta(min_length=4, max_length=MAX_CHANNELS)]
    factors: tuple[_UInt16, ...]
    factor_shift: _Shift
    directions: tuple[_Int16, ...]
    weights: Annotated[tuple[_Int16, ...], Meta(min_length=2, max_length=MAX_DIRECTIONS + 1)]
    weight_shifts: tuple[_Shift, ...]
    zero_point: OmitDefault[Annotated[int, Meta(ge=0, le=254)]] = 0

    @property
    def pixels(self) -> int:
        """The number of pixels of the layer."""
        return self.shape[1] * self.shape[2] if len(self.shape) == 3 else 1


class ScoreTable(Record, frozen=True):
    """E-values of the score of a picture or layer: step 5 of the definition.

    The thresholds increase, and there is one more step than thresholds. `unusual` is the score
    above which an image counts as unlike the calibration images.
    """

    thresholds: Annotated[tuple[_Int32, ...], Meta(min_length=1, max_length=8)]
    steps: Annotated[tuple[_Step, ...], Meta(min_length=2, max_length=9)]
    unusual: _Int32


class KnownChange(Record, frozen=True):
    """A known change of images: its direction in the deviations, and thresholds of its score."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    direction: Annotated[tuple[_Int16, ...], _Features]
    thresholds: Annotated[tuple[_Int16, ...], Meta(min_length=1, max_length=8)]


class DriftTable(Record, frozen=True):
    """E-values of the drift score: step 5 of the definition. All changes have the same steps."""

    changes: Annotated[tuple[KnownChange, ...], Meta(min_length=1, max_length=64)]
    steps: Annotated[tuple[_Step, ...], Meta(min_length=2, max_length=9)]


class ImageOrigin(Record, frozen=True):
    """Images that a part of a guard comes from: the digest of their set and their number."""

    digest: Sha256
    images: _Count
    cases: _Count


class Guard(ValueView, Record, frozen=True):
    """Content of `guard.json`: everything that a device needs to judge images.

    Attributes:
        shape: Shape of the network's input, (channels, height, width).
        row_step: Every `row_step`-th row of the image is summed.
        picture: The form of the picture.
        layer: The form of a layer; None if no layer suits.
        picture_table: E-values of the picture's score.
        drift: E-values of the drift score.
        layer_table: E-values of the layer's score; None without a layer.
        forms: Images that the forms were fitted to.
        calibrated: Images that the tables were made from, and that nothing else was fitted to.
        seal: SHA-256 of the rest.
    """

    tcc_guard: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=1 << 14)], ...], Meta(min_length=3, max_length=3)
    ]
    row_step: int
    picture: PictureForm
    layer: LayerForm | None
    picture_table: ScoreTable
    drift: DriftTable
    layer_table: ScoreTable | None
    forms: ImageOrigin
    calibrated: ImageOrigin
    seal: str = ""

    @property
    def scores(self) -> int:
        """The number of scores: 3, or 2 without a layer."""
        return 3 if self.layer else 2

    def _summarize(self) -> Iterator[str]:
        layer = f"and the channels of `{self.layer.tap}`" if self.layer else "alone"
        yield (
            f"Guard: the picture {layer}; calibrated on {count(self.calibrated.cases, 'case')}, "
            f"{count(self.calibrated.images, 'image')}"
        )


KIND = DocumentKind(
    Guard, "tcc_guard", VERSION, "E0740", "a guard file", "build again with --guard-data", indent=1
)


def encode(guard: Guard) -> bytes:
    """Return the sealed bytes of the file. Equal guards give equal bytes."""
    return KIND.encode(guard)


def read_guard(path: Path) -> Guard:
    """Read a guard file.

    Raises:
        UserError: The file cannot be read (E0603), or is no complete guard (E0740).
    """
    return decode(KIND.read_bytes(path, "read the guard", MAX_BYTES), str(path))


def decode(content: bytes, name: str) -> Guard:
    """Decode the bytes of a guard file; errors call it `name`.

    Raises:
        UserError: The bytes are no complete guard of a known version (E0740).
    """
    guard = KIND.decode(content, name)
    problem = next(_find_problems(guard), None)
    if problem:
        raise KIND.make_damage_error(name, problem)
    return guard


def _find_problems(guard: Guard) -> Iterator[str]:
    """Yield what a device could not compute with: sizes that do not fit each other."""
    channels, height, width = guard.shape
    if guard.row_step not in ROW_STEPS:
        yield f"`row_step` is {guard.row_step}"
    elif channels not in (1, 3):
        yield f"`shape` has {channels} channels"
    elif count_sampled_pixels(height, width, guard.row_step)[0] > MAX_SAMPLED_PIXELS:
        yield f"`row_step` is too small for an image of {width}x{height} pixels"
    yield from _find_table_problems(guard.picture_table.thresholds, guard.picture_table.steps)
    for change in guard.drift.changes:
        yield from _find_table_problems(change.thresholds, guard.drift.steps)
    if guard.layer is not None and guard.layer_table is not None:
        yield from _find_layer_problems(guard.layer)
        yield from _find_table_problems(guard.layer_table.thresholds, guard.layer_table.steps)
    elif guard.layer is not None or guard.layer_table is not None:
        yield "`layer` and `layer_table` must both be null or both not"


def _find_layer_problems(layer: LayerForm) -> Iterator[str]:
    channels, directions = len(layer.center), len(layer.weights) - 1
    if len(layer.shape) == 2:
        yield "`layer/shape` has two sizes"
    elif len(range(0, layer.shape[0], layer.stride)) != channels:
        yield f"`layer/center` has {channels} channels"
    elif layer.pixels > MAX_SAMPLED_PIXELS:
        yield "`layer/shape` is too large"
    if len(layer.factors) != channels or len(layer.directions) != directions * channels:
        yield "`layer/factors` or `layer/directions` has another size than `layer/center`"
    if len(layer.weight_shifts) != len(layer.weights):
        yield "`layer/weight_shifts` has another size than `layer/weights`"


def _find_table_problems(thresholds: tuple[int, ...], steps: tuple[int, ...]) -> Iterator[str]:
    if len(steps) != len(thresholds) + 1:
        yield "`steps` must have one entry more than `thresholds`"
    for name, numbers in (("thresholds", thresholds), ("steps", steps)):
        if list(numbers) != sorted(numbers):
            yield f"`{name}` of a score must increase"
