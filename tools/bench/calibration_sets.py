"""The networks and images of `calibration.py`: read from its cases, and kept ready in a folder.

Images are kept as the grey levels that a network's contract makes of them, so that every method
reads the same files, none of which it has to resize.
"""

import hashlib
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tcc.compiler.data import dataset, weights
from tcc.compiler.driver import pipeline
from tcc.compiler.frontend import spec as specs
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.reference import float_program, output_comparison
from tcc.compiler.zoo import shipped, trained

ROOT = Path(__file__).resolve().parents[2]
Rows = NDArray[np.float32]
"""A model's first output, (images, *shape)."""


@dataclass(frozen=True, eq=False)
class BenchNetwork:
    """A network with its weights; `is_chosen` if settings were chosen by looking at it."""

    name: str
    spec: Spec
    settings: Mapping[str, str]
    weights: Path
    is_chosen: bool
    sets: tuple[Mapping[str, Any], ...]

    @property
    def source(self) -> Input:
        """Its input."""
        return self.spec.graph.inputs[0]

    @property
    def contract(self) -> Preprocess:
        """What its images go through; pixels are colours, red first."""
        contract = self.source.preprocess
        if contract is None or contract.color != "rgb":
            raise SystemExit(f"{self.name} takes no colour images")
        return contract

    @property
    def model(self) -> Model:
        """The network as written, in floats."""
        weight_source = pipeline.read_weights(self.weights, self.spec.graph)
        return Model(self.spec.graph, weight_source.tensors)

    @property
    def key(self) -> str:
        """What changes where its outputs do."""
        parts = (self.spec.digest.encode(), repr(self.settings).encode(), self.weights.read_bytes())
        return hashlib.sha256(b"".join(parts)).hexdigest()


@dataclass(frozen=True, eq=False)
class BenchSet:
    """Images of one set, and what the float model says of them.

    `images` is uint8 (images, height, width, 3), `classes` the place of each image's label among
    the outputs, -1 where there is none. `has_fit_images` says that calibration images are drawn
    from it, or from the set that it was made of: the others of it judge.
    """

    name: str
    images: NDArray[np.uint8]
    classes: NDArray[np.int64]
    expected: Rows
    has_fit_images: bool


def read_networks(path: Path, folder: Path) -> Iterator[BenchNetwork]:
    """Yield the networks of a file of cases whose weights are here; say which are not.

    Args:
        path: The file, TOML.
        folder: Where imported weights are kept.
    """
    for case in tomllib.loads(path.read_text())["networks"]:
        if network := _read_network(case, folder):
            yield network
        else:
            print(f"{case['name']}: its weights are not here")


def _read_network(case: Mapping[str, Any], folder: Path) -> BenchNetwork | None:
    if "trained" in case:
        zoo = trained.read_networks().get(case["trained"])
        if zoo is None:
            return None
        name, settings, file = zoo.training.spec, dict(zoo.training.settings), zoo.weights
    else:
        name, settings = case["spec"], dict(case.get("settings", {}))
        file = ROOT / case.get("weights", case.get("checkpoint"))
    if not file.exists():
        return None
    spec = specs.load(shipped.list_specs()[name], settings)
    if "checkpoint" in case:
        file = _import_checkpoint(file, spec, folder / f"{case['name']}.safetensors")
    is_chosen = bool(case.get("chosen"))
    return BenchNetwork(case["name"], spec, settings, file, is_chosen, tuple(case["sets"]))


def _import_checkpoint(checkpoint: Path, spec: Spec, path: Path) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        weights.write(path, import_checkpoint(checkpoint, spec.graph).weights)
    return path


def prepare_sets(network: BenchNetwork, folder: Path) -> list[BenchSet]:
    """Return the sets of a network; what takes long is done once, and kept in the folder."""
    folder = folder / f"{network.name}-{network.key[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    sets: dict[str, BenchSet] = {}
    main_set = network.sets[0]["name"]
    for case in network.sets:
        name = case["name"]
        origin = sets[case["of"]] if "of" in case else None
        stem = folder / name.replace(" ", "-")
        images = _load_cached(stem, "levels", lambda c=case, o=origin: _read_images(network, c, o))
        expected = _load_cached(
            stem, "expected", lambda x=images: compute_outputs(network.model, x)
        )
        classes = origin.classes if origin else _read_classes(network, case)
        has_fit_images = name == main_set or case.get("of") == main_set
        sets[name] = BenchSet(name, images, classes, expected, has_fit_images)
    return list(sets.values())


def _load_cached(stem: Path, array_name: str, make: Any) -> NDArray[Any]:
    path = stem.with_name(f"{stem.name}-{array_name}.npy")
    if not path.exists():
        partial = path.with_suffix(".partial.npy")
        np.save(partial, make())
        partial.rename(path)
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def _read_datasets(case: Mapping[str, Any]) -> list[dataset.DataSet]:
    return [dataset.read_dataset(ROOT / folder) for folder in case["folders"]]


def _read_images(
    network: BenchNetwork, case: Mapping[str, Any], origin: BenchSet | None
) -> NDArray[np.uint8]:
    if origin is None:
        assert network.contract.color == "rgb"
        images = (
            data_set.read_pixels(i, network.source)
            for data_set in _read_datasets(case)
            for i in range(len(data_set))
        )
        return np.stack(list(images)).astype(np.uint8)
    # A stain absorbs as its density says (Beer, Lambert): light to the power of it is left.
    table = np.rint(255 * (np.arange(256) / 255) ** case["density"]).astype(np.uint8)
    shifted: NDArray[np.uint8] = table[origin.images]
    return shifted


def _read_classes(network: BenchNetwork, case: Mapping[str, Any]) -> NDArray[np.int64]:
    labels = list(output_comparison.get_inference_outputs(network.model)[0].labels)
    image_labels = [
        labelled_image.label
        for data_set in _read_datasets(case)
        for labelled_image in data_set.items
    ]
    return np.array([labels.index(label) if label in labels else -1 for label in image_labels])


def compute_outputs(model: Model, images: NDArray[np.uint8], *, optimised: bool = False) -> Rows:
    """Return the first output of a float model or an integer program, for images as levels."""
    run = float_program.create_runner(model, optimised=optimised)
    contract = model.graph.inputs[0].preprocess
    assert contract is not None
    name = output_comparison.get_inference_outputs(model)[0].name
    return np.stack([run(preprocess.normalize(contract, image))[name] for image in images])


def draw(network: BenchNetwork, count: int, images: int, number: int) -> list[int]:
    """Return the places of the images of a draw, of so many as there are.

    Raises:
        SystemExit: There are fewer: copies would be taken once, and so cost less.
    """
    if images > count:
        raise SystemExit(f"{network.name} has {count} images: `--cases` may name others")
    return sorted(random.Random(f"{network.name} {number}").sample(range(count), images))


def write_images(images: NDArray[np.uint8], indices: Sequence[int], folder: Path) -> Path:
    """Return a folder with images as PNG files, which is made if it is not there."""
    marker = folder.with_suffix(".complete")
    if not marker.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number, index in enumerate(indices):
            pixels = images[index].copy()
            # An image that comes again is another file, of other contents.
            pixels[0, 0, 0] ^= number // len(images)
            Image.fromarray(pixels).save(folder / f"{number:05}.png", compress_level=1)
        marker.touch()
    return folder


def name_tensors(lite: bytes) -> bytes:
    """Return a TFLite file with a name for every tensor, as ai-edge-quantizer wants it."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(lite)
    for number, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = tensor.name or f"constant{number}".encode()
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
