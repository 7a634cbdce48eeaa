"""Trained networks of the zoo: a spec with settings, and weights trained for it.

Each is a folder in `zoo/trained` with the network's name:

- `network.yaml`: the spec, its settings, the recipe and the purpose;
- `weights.safetensors` and `calibration.json`, which fit only that spec with those settings;
- `card.md`: training data, training, accuracy, and limits.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.data.training_record import TrainingRecord, describe_splits, read_run
from tcc.compiler.frontend import spec as specs
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.frontend.yaml import parse, to_plain
from tcc.compiler.support import json_records
from tcc.compiler.support.json_records import Record
from tcc.compiler.zoo import shipped


class Training(Record, frozen=True):
    """The content of `network.yaml`; settings are text, as in `--set`.

    `samples` is the folder of the zoo with the synthetic images most like its training images.
    `data` and `limits` are sentences of the card. `license` is that of the weights.
    """

    spec: str
    settings: Mapping[str, str]
    recipe: str
    seed: int
    task: str
    samples: str
    license: str
    data: str
    limits: str


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A trained network, and the folder of its files."""

    name: str
    training: Training
    folder: Path

    @property
    def weights(self) -> Path:
        """Path of its weights (safetensors)."""
        return self.folder / "weights.safetensors"

    @property
    def calibration(self) -> Path:
        """Path of its calibration, made from training images."""
        return self.folder / "calibration.json"

    @property
    def samples(self) -> Path:
        """Folder of synthetic images, which may not belong to its classes."""
        return self.folder.parent.parent / self.training.samples

    @property
    def card(self) -> Path:
        """Path of its model card (Markdown)."""
        return self.folder / "card.md"

    def load(self, settings: Mapping[str, str] | None = None) -> Spec:
        """Return its spec under the network's name; `settings` override its own.

        Raises:
            UserError: A setting is invalid.
        """
        spec = specs.load(
            shipped.list_specs()[self.training.spec], {**self.training.settings, **(settings or {})}
        )
        return replace(spec, name=self.name, graph=replace(spec.graph, name=self.name))


def read_networks() -> Mapping[str, TrainedNetwork]:
    """Return every trained network by name, sorted."""
    return {path.parent.name: _read_network(path) for path in shipped.list_trained()}


def find_by_name(name: str, base: Path = Path()) -> TrainedNetwork | None:
    """Return the trained network with a name; None if the name is a file or unknown.

    Args:
        name: The user's input.
        base: The folder for a relative path.
    """
    path = base / name
    if os.path.exists(path) and not os.path.isdir(path):
        return None
    return next(
        (_read_network(path) for path in shipped.list_trained() if path.parent.name == name), None
    )


def find_by_spec(spec: Spec) -> TrainedNetwork | None:
    """Return the trained network that a spec was loaded from; None if it was not."""
    # The name alone is not enough: a user's own network may have it too.
    network = read_networks().get(spec.name)
    return network if network and spec.name in list_names_of_spec(spec.path) else None


def list_names_of_spec(path: Path) -> tuple[str, ...]:
    """Return the names of the trained networks with a spec file."""
    specs_by_name = shipped.list_specs()
    return tuple(
        name
        for name, network in read_networks().items()
        if specs_by_name[network.training.spec].samefile(path)
    )


def _read_network(path: Path) -> TrainedNetwork:
    training: Training = json_records.decode(Training, to_plain(parse(path.read_text(), path.name)))
    return TrainedNetwork(path.parent.name, training, path.parent)


_DIGEST = re.compile(r"digest of the weights is `([0-9a-f]{64})`")
_FLOAT, _INT8 = "float", "int8, "
"""First cells of rows in the accuracy table."""


def find_record(digest: str) -> TrainingRecord | None:
    """Return the training record from a zoo network's card; None for weights not of the zoo.

    Args:
        digest: Digest of the weights' tensors.
    """
    for network in read_networks().values():
        text = network.card.read_text()
        stated = _DIGEST.search(text)
        if stated and stated[1] == digest:
            return _build_record(network, text)
    return None


def find_training(folder: Path | None, digest: str) -> TrainingRecord | None:
    """Return the training record of weights from their folder or the zoo; None without either.

    Args:
        folder: The folder of the weights' file, if any.
        digest: Digest of the weights' tensors.
    """
    run = read_run(folder, digest) if folder else None
    return run or find_record(digest)


def _build_record(network: TrainedNetwork, text: str) -> TrainingRecord:
    training = network.training
    (_, *classes, _), *splits = _read_table(text, "Data")
    _, *rows = _read_table(text, "Accuracy on the test images")
    forms = {name: _describe(*cells) for name, *cells in rows}
    counts = {split: tuple(map(int, row[:-1])) for split, *row in splits}
    return TrainingRecord(
        f"the card of {network.name} in the zoo",
        network.load().digest,
        (training.data.strip(), *describe_splits(classes, counts)),
        (f"{forms[_FLOAT]}, in float32",),
        (training.limits.strip(),),
        hashlib.sha256(network.calibration.read_bytes()).hexdigest(),
        {name.removeprefix(_INT8): sentence for name, sentence in forms.items() if name != _FLOAT},
        method=(_get_section(text, "Training"),),
        by_class=tuple(_describe_classes(text)),
    )


def _describe_classes(text: str) -> Iterator[str]:
    """Yield the float accuracy of each class on the test images."""
    table = _get_section(text, "Accuracy on the test images").partition("\n| class, in float")[2]
    for row in table.split("\n\n")[0].splitlines()[2:]:
        name, sensitivity, specificity, images = (
            cell.strip() for cell in row.strip("| ").split("|")
        )
        yield f"{name}: sensitivity {sensitivity}, specificity {specificity}, {images} images"


def _get_section(text: str, title: str) -> str:
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0].strip()


def _describe(correct: str, accuracy: str, interval: str, *_: str) -> str:
    return f"{correct} test images correct, {accuracy} (95 % confidence interval {interval})"


def _read_table(text: str, section: str) -> list[list[str]]:
    """Return the cells of the first table in a section, the header row first."""
    body = f"{_get_section(text, section)}\n\n"
    table = body[body.index("| ") :].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    return [row for row in rows if row and set(row[0]) != {"-"}]
