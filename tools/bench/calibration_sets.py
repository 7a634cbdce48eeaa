"""Read the networks and images of `calibration.py` from its cases, and cache them in a folder.

Images are stored as the pixels that a network's preprocessing resizes them to. So every method
reads the same files, and none has to resize them.
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
    """A network with its weights; `is_chosen` if it influenced the choice of settings."""

    name: str
    spec: Spec
    settings: Mapping[str, str]
    weights: Path
    is_chosen: bool
    sets: tuple[Mapping[str, Any], ...]

    @property
    def source(self) -> Input:
        """The network's input."""
        return self.spec.graph.inputs[0]

    @property
    def contract(self) -> Preprocess:
        """The preprocessing of the input; pixels are RGB."""
        contract = self.source.preprocess
        if contract is None or contract.color != "rgb":
            raise SystemExit(f"{self.name} does not take colour images")
        return contract

    @property
    def model(self) -> Model:
        """The fp32 model of the spec."""
        weight_source = pipeline.read_weights(self.weights, self.spec.graph)
        return Model(self.spec.graph, weight_source.tensors)

    @property
    def key(self) -> str:
        """A hash that changes with the outputs."""
        parts = (self.spec.digest.encode(), repr(self.settings).encode(), self.weights.read_bytes())
        return hashlib.sha256(b"".join(parts)).hexdigest()


@dataclass(frozen=True, eq=False)
class BenchSet:
    """The images of one set, with the float model's outputs.

    `images` is uint8 (images, height, width, 3). `classes` has the output index of each image's
    label, or -1. `has_fit_images` means that calibration images are drawn from this set, or from
    the set that it was derived from; the other images evaluate.
    """

    name: str
    images: NDArray[np.uint8]
    classes: NDArray[np.int64]
    expected: Rows
    has_fit_images: bool


def read_networks(path: Path, folder: Path) -> Iterator[BenchNetwork]:
    """Yield the networks of a case file that have weights; print the others.

    Args:
        path: The TOML file.
        folder: The folder of imported weights.
    """
    for case in tomllib.loads(path.read_text())["networks"]:
        if network := _read_network(case, folder):
            yield network
        else:
            print(f"{case['name']}: skipped, because its weights are missing")


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
    """Return the sets of a network; slow steps are cached in the folder."""
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
    # Absorption is proportional to the stain density (Beer-Lambert), so scale it by a power.
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
    """Return the first output of a float model or an integer program for uint8 images."""
    run = float_program.create_runner(model, optimised=optimised)
    contract = model.graph.inputs[0].preprocess
    assert contract is not None
    name = output_comparison.get_inference_outputs(model)[0].name
    return np.stack([run(preprocess.normalize(contract, image))[name] for image in images])


def draw(network: BenchNetwork, count: int, images: int, number: int) -> list[int]:
    """Return the indices of a draw's images.

    Raises:
        SystemExit: The set is too small. Repeated images would cost less, because they are cached.
    """
    if images > count:
        raise SystemExit(
            f"{network.name} has only {count} images: give a larger set with `--cases`"
        )
    return sorted(random.Random(f"{network.name} {number}").sample(range(count), images))


def write_images(images: NDArray[np.uint8], indices: Sequence[int], folder: Path) -> Path:
    """Return a folder with images as PNG files; create it if it does not exist."""
    marker = folder.with_suffix(".complete")
    if not marker.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number, index in enumerate(indices):
            pixels = images[index].copy()
            # A repeated image gets another file with other bytes.
            pixels[0, 0, 0] ^= number // len(images)
            Image.fromarray(pixels).save(folder / f"{number:05}.png", compress_level=1)
        marker.touch()
    return folder


def name_tensors(lite: bytes) -> bytes:
    """Return a TFLite file with a name for every tensor, as ai-edge-quantizer requires."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(lite)
    for number, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = tensor.name or f"constant{number}".encode()
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
