"""`calibration.json`, version 3: a calibration with its provenance, sealed.

The records below define the format. Tensors are base64 of little-endian bytes in row-major order;
the model defines their shapes. float32 numbers round-trip bit-exactly. The content does not depend
on file names, folders or time.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, field

from tcc.compiler.bundle.manifest import InputContract, NetworkRecord, WeightsOrigin
from tcc.compiler.data.dataset import DataSet, remove_repeats
from tcc.compiler.quant.calibration import MAX_ZERO_POINT, Range
from tcc.compiler.quant.methods.searched_ranges import ScaleTrace
from tcc.compiler.reference.accuracy_floor import Qualities
from tcc.compiler.reference.expected_loss import ExpectedLoss
from tcc.compiler.support.json_records import DocumentKind, OmitDefault, Record, Sha256
from tcc.compiler.support.value_views import ValueView, count, list_names

VERSION, OLDER = 3, (2,)
MAX_BYTES = 1 << 30
"""Maximum file size: with base64's 4 bytes for 3, about 800 million weights fit."""


class CalibrationImages(Record, frozen=True):
    """The calibration images: digest of the dataset, number, and number of held-out images.

    `repeats` are the digests of ignored files: other files have the same pixels.
    """

    digest: Sha256
    images: Annotated[int, Meta(ge=1)]
    held_out: Annotated[int, Meta(ge=0)]
    repeats: OmitDefault[tuple[str, ...]] = ()

    def split_images(self, images: DataSet) -> tuple[DataSet, DataSet]:
        """Return the fit set and the held-out set.

        Args:
            images: A dataset that begins with the calibration images.
        """
        return remove_repeats(images.select_first(self.images), self.repeats).split()

    def is_prefix_of(self, images: DataSet) -> bool:
        """Whether a dataset begins with these images."""
        return images.select_first(self.images).digest == self.digest


class CalibratedValue(Record, frozen=True):
    """Quantization parameters of one value, with the trace of how they were found."""

    scale: float
    signed: bool
    trace: ScaleTrace | None
    zero_point: OmitDefault[Annotated[int, Meta(ge=0, le=MAX_ZERO_POINT)]] = 0

    @property
    def range(self) -> Range:
        """The range that the parameters are."""
        return Range(self.scale, self.signed, self.zero_point)


class EncodedWeights(Record, frozen=True):
    """Quantized weights of one convolution: base64 of int8, float32 and int32 tensors."""

    weight: str
    scale: str
    bias: str


class CalibrationDocument(ValueView, Record, frozen=True):
    """Content of a calibration file.

    Attributes:
        used: The candidate that `method` chose.
        judged: Quality of each candidate on images that it was not fitted to, by output.
        expected: Expected loss on unseen images, by output.
        usual: Share of saturated values by value, on calibration images.
        usual_largest: The same in the image with the most saturated values.
        usual_images: Number of images counted; 0 in files without `usual_largest`.
        seal: SHA-256 of the rest.
    """

    # First in the file and named after the format, so that readers of other versions recognize it.
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
    # With defaults: files of version 2 and early files of version 3 lack these and still build.
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
            yield f"layers in float: {list_names(self.in_float)}"
        losses = [
            f"{name} {loss.loss:.2e} (95 % confidence interval {loss.low:.2e} to {loss.high:.2e})"
            for name, loss in self.expected.items()
        ]
        unknown = "not estimated: too few images"
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
    """Return the sealed bytes of the file. Equal documents give equal bytes."""
    return KIND.encode(document)


def read_document(path: Path) -> CalibrationDocument:
    """Read a calibration file.

    Raises:
        UserError: The file cannot be read (E0603), or is no complete calibration (E0730).
    """
    return decode(KIND.read_bytes(path, "read the calibration", MAX_BYTES), str(path))


def decode(content: bytes, name: str) -> CalibrationDocument:
    """Decode the bytes of a calibration file; errors call it `name`.

    Raises:
        UserError: The bytes are no complete calibration of a known version (E0730).
    """
    return KIND.decode(content, name)


def digest(document: CalibrationDocument) -> str:
    """Return the SHA-256 of the file's bytes."""
    # Of the encoded form, not of the bytes read: an editor's white space changes no calibration.
    return hashlib.sha256(encode(document)).hexdigest()
