"""The bundle's manifest, `manifest.json`, version 2.

The records below define it completely: its JSON Schema is generated from them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Literal

from msgspec import Meta, field

from tcc.compiler.bundle.agreement import Tolerance
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ir.target import Memory, ToolReport
from tcc.compiler.ir.types import OutputActivation, OutputKind
from tcc.compiler.reference.accuracy_floor import Quality, QualityBounds
from tcc.compiler.support import json_records
from tcc.compiler.support.json_records import DocumentKind, OmitDefault, Record, Sha256, seal
from tcc.compiler.support.value_views import ValueView, list_names

NAME = "manifest.json"
VERSION = 2
MAX_BYTES = 4 << 20
"""Largest manifest that is read."""

# An absolute path matches too, so that it gets its own error (E0623).
_Path = Annotated[str, Meta(pattern="^/?[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*$")]


class BundleFile(Record, frozen=True):
    """One file of a bundle: path below its folder, with `/`; bytes; SHA-256 in hex."""

    path: _Path
    bytes: int
    sha256: Sha256
    executable: bool


class NetworkRecord(Record, frozen=True):
    """The model as compiled: `spec` is the digest of its text, libraries and settings."""

    name: str
    doc: str
    spec: str
    params: Mapping[str, str]


class WeightsOrigin(Record, frozen=True):
    """Origin of the weights; with `random` ones every prediction is meaningless.

    `file` is the name of a trained network of the zoo. In older bundles and calibrations it is the
    name of the user's file.
    """

    origin: Literal["file", "zoo", "random"]
    digest: str
    file: str | None
    seed: int | None
    notice: str | None


class Measured(Record, frozen=True):
    """Quality of each output of the int8 model against fp32; `where` names the images.

    `bounds` are 95 % confidence bounds for unseen images, which the accuracy floor was checked
    against. `images` is the number of distinct images. Older bundles have neither.
    """

    where: str
    outputs: Mapping[str, Quality]
    bounds: OmitDefault[Mapping[str, QualityBounds]] = field(default_factory=dict)
    images: OmitDefault[int] = 0

    def describe(self) -> str:
        """Return one line: how close the int8 model is to the fp32 model."""
        outputs = list_names(
            f"{name} {', '.join(quality.describe())}" for name, quality in self.outputs.items()
        )
        images = max((quality.images for quality in self.outputs.values()), default=0)
        return f"int8 against fp32 over {images:,} images {self.where}: {outputs}"


class Calibrated(Record, frozen=True):
    """Calibration of an integer program: `digest` is that of its calibration file.

    `data` is the digest of the images and `images` their number. `in_float` lists the layers that
    stay in float, `inexact` those whose results a target may round differently.
    """

    method: str
    digest: Sha256
    data: str
    images: int
    measured: Measured | None
    in_float: tuple[str, ...]
    inexact: tuple[str, ...]


class InputContract(Record, frozen=True):
    """The input contract: the tensor, and its preprocessing (None if the input is no image)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    preprocess: Preprocess | None


class OutputContract(Record, frozen=True):
    """An output with raw values; the reader applies `activation`.

    `kind` is the meaning of the values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    activation: OutputActivation
    labels: tuple[str, ...]
    kind: OutputKind


class Golden(Record, frozen=True):
    """An input image, its preprocessed tensor, and the raw outputs of the reference.

    The fields are paths in the bundle. Tensors are little-endian, row-major, without a header.
    """

    name: str
    source: str
    image: str | None
    tensor: str
    outputs: Mapping[str, str]


class Goldens(Record, frozen=True):
    """The goldens, the executor that computed them, and the tolerance of a replay."""

    executor: str
    tolerance: Tolerance
    cases: tuple[Golden, ...]


class BuildWarning(Record, frozen=True):
    """A warning of a build: layers that violate one `rule` of the target's documentation.

    `found` describes the first of them, `help` what to write instead.
    """

    code: str
    message: str
    layers: tuple[str, ...]
    found: str
    rule: str
    help: str


class Manifest(ValueView, Record, frozen=True):
    """All statements of a bundle about itself; `seal` is the SHA-256 of the rest.

    `compiled` is the vendor toolchain's report, if it was installed and compiled the package.
    `memory` is the working memory, if it is fixed. `warnings` is what runs slowly or may not run on
    the target according to its documentation. `operating_points` are the fitted temperatures and
    thresholds of outputs.
    """

    tcc_bundle: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    model: NetworkRecord
    weights: WeightsOrigin
    target: str
    precision: str
    calibration: Calibrated | None
    made_with: Mapping[str, str]
    input: InputContract
    outputs: tuple[OutputContract, ...]
    goldens: Goldens
    files: tuple[BundleFile, ...]
    compiled: OmitDefault[ToolReport | None] = None
    memory: OmitDefault[Memory | None] = None
    warnings: OmitDefault[tuple[BuildWarning, ...]] = ()
    operating_points: OmitDefault[tuple[OperatingPoint, ...]] = ()
    seal: str = ""

    @property
    def model_bytes(self) -> int:
        """Total size of the target's files, in bytes."""
        return sum(file.bytes for file in self.files if file.path.startswith("model/"))

    def _summarize(self) -> Iterator[str]:
        yield "Manifest"
        yield from self.describe()

    def describe(self) -> Iterator[str]:
        """Yield lines: what the bundle is, warnings, size, and how close int8 is to fp32."""
        yield (
            f"{self.model.name} for {self.target} at {self.precision}; "
            f"weights: {self.weights.origin}, {self.weights.digest[:12]}"
        )
        doubts = (
            *self.notices,
            *(f"{warning.code}: {warning.message}" for warning in self.warnings),
        )
        if doubts:
            yield f"warning: {'; '.join(doubts)}"
        memory = f", {self.memory.arena:,} of working memory" if self.memory else ""
        yield f"{self.model_bytes:,} bytes of model files{memory}"
        if self.calibration:
            measured = self.calibration.measured
            yield measured.describe() if measured else "int8 against fp32: not measured"

    def find_operating_point(self, output: str) -> OperatingPoint | None:
        """Return the fitted operating point of an output; None if it has none."""
        return next((point for point in self.operating_points if point.output == output), None)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user must know: about the weights, and about missed targets."""
        points = (point.judged.notice for point in self.operating_points if point.judged)
        return tuple(notice for notice in (self.weights.notice, *points) if notice)


KIND = DocumentKind(
    Manifest, "tcc_bundle", VERSION, "E0621", "a bundle's manifest", "build the bundle again"
)


def seal_manifest(manifest: Manifest) -> Manifest:
    """Return the manifest with its seal."""
    return replace(manifest, seal=seal(json_records.encode(manifest)))


def build_input_contract(graph: Graph) -> InputContract:
    """Return the manifest's input contract of a graph with one input."""
    (graph_input,) = graph.inputs
    return InputContract(
        graph_input.name,
        graph_input.type.shape,
        graph_input.type.dtype.value,
        graph_input.preprocess,
    )


def build_output_contracts(graph: Graph) -> tuple[OutputContract, ...]:
    """Return the manifest's outputs of a graph."""
    return tuple(
        OutputContract(
            o.name, graph.types[o.value].shape, "float32", o.activation, o.labels, o.meaning
        )
        for o in graph.outputs
        if not o.train_only
    )


def encode(manifest: Manifest) -> bytes:
    """Return `manifest.json`, sealed: indented UTF-8, keys in the order of the records."""
    return KIND.encode(manifest)


def read_sealed_paths(content: bytes) -> tuple[str, ...] | None:
    """Return the paths that a manifest of this version lists; None if its seal does not match."""
    try:
        document = json.loads(content)
        if document["tcc_bundle"] != VERSION or document["seal"] != seal(document):
            return None
        return tuple(str(file["path"]) for file in document["files"])
    except (ValueError, RecursionError, LookupError, TypeError):
        return None


def decode(content: bytes, name: str) -> Manifest:
    """Return the manifest from the bytes of `manifest.json`; `name` is the file in errors.

    Raises:
        UserError: It is no manifest of a known version, or was changed (E0621).
    """
    manifest = KIND.decode(content, name)
    try:
        if manifest.input.preprocess is not None:
            preprocess.check(manifest.input.preprocess)
    except ValueError as error:
        raise KIND.make_damage_error(name, f"input/preprocess: {error}") from None
    return manifest
