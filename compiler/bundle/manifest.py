"""What a bundle says of itself: `manifest.json`, version 2.

The records below are its whole definition: the JSON Schema that reads it is made from them.
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

# A path from the root passes here, to be refused with its own error (E0623).
_Path = Annotated[str, Meta(pattern="^/?[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*$")]


class BundleFile(Record, frozen=True):
    """One file of a bundle: path below its folder, with `/`; bytes; SHA-256 in hex."""

    path: _Path
    bytes: int
    sha256: Sha256
    executable: bool


class NetworkRecord(Record, frozen=True):
    """The model as compiled: `spec` is the digest over its text, libraries and settings."""

    name: str
    doc: str
    spec: str
    params: Mapping[str, str]


class WeightsOrigin(Record, frozen=True):
    """Where the weights come from; `random` ones make every prediction meaningless.

    `file` is the name of a trained network of the zoo. Older bundles and calibrations have the name
    of the user's file there.
    """

    origin: Literal["file", "zoo", "random"]
    digest: str
    file: str | None
    seed: int | None
    notice: str | None


class Measured(Record, frozen=True):
    """Each output's integers against its floats: `where` says over which images.

    `bounds` are what unseen images keep at 95 %, which the floor was judged by; `images` is how
    many different images there were for all of this. Older bundles have neither.
    """

    where: str
    outputs: Mapping[str, Quality]
    bounds: OmitDefault[Mapping[str, QualityBounds]] = field(default_factory=dict)
    images: OmitDefault[int] = 0

    def describe(self) -> str:
        """Return in a line how near the integers are to the floats."""
        outputs = list_names(
            f"{name} {', '.join(quality.describe())}" for name, quality in self.outputs.items()
        )
        images = max((quality.images for quality in self.outputs.values()), default=0)
        return f"int8 against fp32 over {images:,} images {self.where}: {outputs}"


class Calibrated(Record, frozen=True):
    """How an integer program came about: `digest` is that of its calibration file.

    `data` is the digest of the images and `images` their number; `in_float` lists the layers that
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
    """The input contract: the tensor, and how an image becomes it (None: it is no image)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    preprocess: Preprocess | None


class OutputContract(Record, frozen=True):
    """An output: raw values; `activation` is for whoever reads them to apply.

    `kind` is what they stand for.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    activation: OutputActivation
    labels: tuple[str, ...]
    kind: OutputKind


class Golden(Record, frozen=True):
    """An image's bytes, the tensor they become, and the raw outputs of the reference.

    Values are paths of the bundle's files. Tensors are little-endian, row by row, without a header.
    """

    name: str
    source: str
    image: str | None
    tensor: str
    outputs: Mapping[str, str]


class Goldens(Record, frozen=True):
    """The goldens, who computed them, and how near a replay must come."""

    executor: str
    tolerance: Tolerance
    cases: tuple[Golden, ...]


class BuildWarning(Record, frozen=True):
    """What a build warned of: layers that break one `rule` of the target's documents.

    `found` is what the first of them has, `help` what to write instead.
    """

    code: str
    message: str
    layers: tuple[str, ...]
    found: str
    rule: str
    help: str


class Manifest(ValueView, Record, frozen=True):
    """All that a bundle says of itself; `seal` is the SHA-256 of the rest.

    `compiled` is what the maker's own tool said, where it was here and compiled the package;
    `memory` is what running takes, where it is fixed; `warnings` is what runs slowly or may not
    run on the target, by its documents; `operating_points` say how outputs are read, where that was
    fitted.
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
        """The bytes of the target's own files."""
        return sum(file.bytes for file in self.files if file.path.startswith("model/"))

    def _summarize(self) -> Iterator[str]:
        yield "Manifest"
        yield from self.describe()

    def describe(self) -> Iterator[str]:
        """Yield what a bundle is, what makes it doubtful, its size, and how near int8 is."""
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
        yield f"{self.model_bytes:,} bytes of the target's files{memory}"
        if self.calibration:
            measured = self.calibration.measured
            yield measured.describe() if measured else "int8 against fp32: not measured"

    def find_operating_point(self, output: str) -> OperatingPoint | None:
        """Return how an output is read, None where nothing was fitted of it."""
        return next((point for point in self.operating_points if point.output == output), None)

    @property
    def notices(self) -> tuple[str, ...]:
        """What whoever runs it must know: of its weights, and of targets that it misses."""
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
    """Return the paths that a manifest of this version lists, if its seal is of its content."""
    try:
        document = json.loads(content)
        if document["tcc_bundle"] != VERSION or document["seal"] != seal(document):
            return None
        return tuple(str(file["path"]) for file in document["files"])
    except (ValueError, RecursionError, LookupError, TypeError):
        return None


def decode(content: bytes, name: str) -> Manifest:
    """Return the manifest of the bytes of `manifest.json`; `name` stands for it in errors.

    Raises:
        UserError: It is no manifest of a version that is known, or was changed (E0621).
    """
    manifest = KIND.decode(content, name)
    try:
        if manifest.input.preprocess is not None:
            preprocess.check(manifest.input.preprocess)
    except ValueError as error:
        raise KIND.make_damage_error(name, f"input/preprocess: {error}") from None
    return manifest
