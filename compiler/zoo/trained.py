"""The trained networks of the zoo: a spec with settings, and what was learned for it.

Each is a folder of `zoo/trained`, named as the network is:

- `network.yaml`: the spec, its settings, the recipe and what the network is for;
- `weights.safetensors` and `calibration.json`, which fit that spec with those settings alone;
- `card.md`: what it was trained on, how, how good it is, and what it is not fit for.
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
    """What `network.yaml` says: settings are text, as `--set` takes them.

    `samples` is the folder of the zoo with drawn images that are most like its own; `data` and
    `limits` are sentences of the card; `license` is that of the weights.
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
    """A trained network, and the folder that its files lie in."""

    name: str
    training: Training
    folder: Path

    @property
    def weights(self) -> Path:
        """Its weights, safetensors."""
        return self.folder / "weights.safetensors"

    @property
    def calibration(self) -> Path:
        """Its calibration, of images that it was trained on."""
        return self.folder / "calibration.json"

    @property
    def samples(self) -> Path:
        """Drawn images, which need not be of its classes."""
        return self.folder.parent.parent / self.training.samples

    @property
    def card(self) -> Path:
        """Its model card, Markdown."""
        return self.folder / "card.md"

    def load(self, settings: Mapping[str, str] | None = None) -> Spec:
        """Return its spec, which bears the network's name; `settings` go before its own.

        Raises:
            UserError: A setting is wrong.
        """
        spec = specs.load(
            shipped.list_specs()[self.training.spec], {**self.training.settings, **(settings or {})}
        )
        return replace(spec, name=self.name, graph=replace(spec.graph, name=self.name))


def read_networks() -> Mapping[str, TrainedNetwork]:
    """Return every trained network by name, in order."""
    return {path.parent.name: _read_network(path) for path in shipped.list_trained()}


def find_by_name(name: str, base: Path = Path()) -> TrainedNetwork | None:
    """Return the trained network that a user calls so; None where a file is meant, or none is.

    Args:
        name: What the user wrote.
        base: The folder that a relative path starts from.
    """
    path = base / name
    if os.path.exists(path) and not os.path.isdir(path):
        return None
    return next(
        (_read_network(path) for path in shipped.list_trained() if path.parent.name == name), None
    )


def find_by_spec(spec: Spec) -> TrainedNetwork | None:
    """Return the trained network that a spec was loaded as, if it was."""
    # Its name alone is not enough: a user may call a network of their own so.
    network = read_networks().get(spec.name)
    return network if network and spec.name in list_names_of_spec(spec.path) else None


def list_names_of_spec(path: Path) -> tuple[str, ...]:
    """Return the names of the trained networks of a spec file."""
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
"""How the rows of a table of accuracy begin."""


def find_record(digest: str) -> TrainingRecord | None:
    """Return what the zoo's card of weights says; None of weights that are not the zoo's.

    Args:
        digest: That of the weights' tensors.
    """
    for network in read_networks().values():
        text = network.card.read_text()
        stated = _DIGEST.search(text)
        if stated and stated[1] == digest:
            return _build_record(network, text)
    return None


def find_training(folder: Path | None, digest: str) -> TrainingRecord | None:
    """Return what a training's folder says of weights, or else the zoo; None where neither does.

    Args:
        folder: That of the weights' file, if they are of one.
        digest: That of the weights' tensors.
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
    """Yield the figures of each class, in float, on the test images."""
    table = _get_section(text, "Accuracy on the test images").partition("\n| class, in float")[2]
    for row in table.split("\n\n")[0].splitlines()[2:]:
        name, sensitivity, specificity, images = (
            cell.strip() for cell in row.strip("| ").split("|")
        )
        yield f"{name}: sensitivity {sensitivity}, specificity {specificity}, {images} images"


def _get_section(text: str, title: str) -> str:
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0].strip()


def _describe(correct: str, accuracy: str, interval: str, *_: str) -> str:
    return f"{correct} test images right, {accuracy} (95% interval {interval})"


def _read_table(text: str, section: str) -> list[list[str]]:
    """Return the cells of the first table of a section, its heads first."""
    body = f"{_get_section(text, section)}\n\n"
    table = body[body.index("| ") :].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    return [row for row in rows if row and set(row[0]) != {"-"}]
