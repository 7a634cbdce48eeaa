"""`calibration.json`, version 3: a calibration with all that it depends on, sealed.

The records below are its whole definition. Tensors are base64 of their bytes, little-endian, row by
row; their shapes are the model's. Numbers that are float32 come back to the bit. Nothing in it
depends on what images are called, where they lie or when it was made.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, field

from tcc.compiler.bundle.manifest import InputContract, NetworkRecord, WeightsOrigin
from tcc.compiler.data.dataset import DataSet, remove_repeats
from tcc.compiler.quant.methods.searched_ranges import ScaleTrace
from tcc.compiler.reference.accuracy_floor import Qualities
from tcc.compiler.reference.expected_loss import ExpectedLoss
from tcc.compiler.support import regular_files
from tcc.compiler.support.json_records import DocumentKind, OmitDefault, Record, Sha256
from tcc.compiler.support.value_views import ValueView, count, list_names

VERSION, OLDER = 3, (2,)
MAX_BYTES = 1 << 30
"""Largest file that is read: base64 makes 4 bytes of 3, so that some 800 million weights fit."""


class CalibrationImages(Record, frozen=True):
    """The images: the digest of the set, how many, and how many of them nothing looked at.

    `repeats` are the digests of files that were left out, since others show the same pixels.
    """

    digest: Sha256
    images: Annotated[int, Meta(ge=1)]
    held_out: Annotated[int, Meta(ge=0)]
    repeats: OmitDefault[tuple[str, ...]] = ()

    def split_images(self, images: DataSet) -> tuple[DataSet, DataSet]:
        """Return what of these images was learnt from and what was held out.

        Args:
            images: The set that the calibration's are the first of.
        """
        return remove_repeats(images.select_first(self.images), self.repeats).split()

    def is_prefix_of(self, images: DataSet) -> bool:
        """Whether these are the first of a set, or all of it."""
        return images.select_first(self.images).digest == self.digest


class CalibratedValue(Record, frozen=True):
    """How one value becomes integers, and how that came about; `trace` as in `ScaleTrace`."""

    scale: float
    signed: bool
    trace: ScaleTrace | None


class EncodedWeights(Record, frozen=True):
    """The integer weights of one convolution: int8, float32 and int32."""

    weight: str
    scale: str
    bias: str


class CalibrationDocument(ValueView, Record, frozen=True):
    """All that a calibration file says; `seal` is the SHA-256 of the rest.

    `used` is the candidate that `method` chose, `judged` how each did on images that it had not
    learnt from, output by output; `expected` what is lost on images that nobody has seen; `usual`
    the share of each value's integers that are saturated, over images of the set; `usual_largest`
    the share in the image with the most, of `usual_images` images: 0 in files that do not say it.
    """

    # First in the file and named after the format, so that a reader of another version knows whose
    # it is.
    tcc_calibration: Annotated[int, Meta(ge=OLDER[0], le=VERSION)]
    method: str
    used: str
    target: str
    model: NetworkRecord
    weights: WeightsOrigin
    data: CalibrationImages
    input: InputContract
    passes: str
    values: Mapping[str, CalibratedValue]
    rounded: Mapping[str, EncodedWeights]
    factors: Mapping[str, str]
    in_float: tuple[str, ...]
    judged: Mapping[str, Qualities]
    notices: tuple[str, ...]
    made_with: Mapping[str, str]
    seal: str = ""
    # With defaults, since files of version 2 and older ones of version 3 have none and still build.
    expected: OmitDefault[Mapping[str, ExpectedLoss]] = field(default_factory=dict)
    usual: OmitDefault[Mapping[str, float]] = field(default_factory=dict)
    usual_largest: OmitDefault[Mapping[str, float]] = field(default_factory=dict)
    usual_images: OmitDefault[Annotated[int, Meta(ge=0)]] = 0

    def _summarize(self) -> Iterator[str]:
        method = f"{self.method} ({self.used})" if self.used != self.method else self.method
        yield (
            f"Calibration of {self.model.name} for {self.target} by {method}: "
            f"{count(len(self.values), 'scale')} from {count(self.data.images, 'image')}, "
            f"{self.data.held_out:,} held out"
        )
        warnings = (*((self.weights.notice,) if self.weights.notice else ()), *self.notices)
        if warnings:
            yield f"warning: {'; '.join(warnings)}"
        if self.in_float:
            yield f"in float: {list_names(self.in_float)}"
        losses = [
            f"{name} {loss.loss:.2e} (95 % interval {loss.low:.2e} to {loss.high:.2e})"
            for name, loss in self.expected.items()
        ]
        unknown = "not estimated, there are too few images"
        yield f"expected loss on unseen images: {list_names(losses) or unknown}"


KIND = DocumentKind(
    CalibrationDocument,
    "tcc_calibration",
    VERSION,
    "E0730",
    "a calibration file",
    "calibrate again",
    indent=1,
    older_versions=OLDER,
)


def encode(document: CalibrationDocument) -> bytes:
    """Return the bytes of the file, sealed: the same for the same document."""
    return KIND.encode(document)


def read_document(path: Path) -> CalibrationDocument:
    """Return the document of a file.

    Raises:
        UserError: It cannot be read (E0603), or is not a whole calibration (E0730).
    """
    # Bounded before JSON is parsed, which takes several times the file's size.
    content = regular_files.read_file(path, "read the calibration", MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise KIND.make_damage_error(str(path), f"it is larger than {MAX_BYTES >> 20} MiB")
    return decode(content, str(path))


def decode(content: bytes, name: str) -> CalibrationDocument:
    """Return the document of a file's bytes; `name` stands for it in errors.

    Raises:
        UserError: It is not a whole calibration of a version that is known (E0730).
    """
    return KIND.decode(content, name)


def digest(document: CalibrationDocument) -> str:
    """Return the SHA-256 of the file's bytes."""
    # Of the encoded form and not of what was read: white space of an editor changes no calibration.
    return hashlib.sha256(encode(document)).hexdigest()
