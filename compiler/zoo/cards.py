"""What the cards of trained networks say of weights, which are told by their digest."""

import hashlib
import re
from pathlib import Path

from tcc.compiler.data.training_record import TrainingRecord, describe_sides, read_run
from tcc.compiler.zoo import trained
from tcc.compiler.zoo.trained import TrainedNetwork

_DIGEST = re.compile(r"digest of the weights is `([0-9a-f]{64})`")
_FLOAT, _INT8 = "float", "int8, "
"""How the rows of a table of accuracy begin."""


def find_record(digest: str) -> TrainingRecord | None:
    """Return what the zoo's card of weights says; None of weights that are not the zoo's.

    Args:
        digest: That of the weights' tensors.
    """
    for network in trained.networks().values():
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
    training = network.about
    (_, *classes, _), *sides = _read_table(text, "Data")
    _, *rows = _read_table(text, "Accuracy on the test images")
    forms = {name: _describe(*cells) for name, *cells in rows}
    counts = {side: tuple(map(int, row[:-1])) for side, *row in sides}
    return TrainingRecord(
        f"the card of {network.name} in the zoo",
        network.load().digest,
        (training.data.strip(), *describe_sides(classes, counts)),
        (f"{forms[_FLOAT]}, in float32",),
        (training.limits.strip(),),
        hashlib.sha256(network.calibration.read_bytes()).hexdigest(),
        {name.removeprefix(_INT8): sentence for name, sentence in forms.items() if name != _FLOAT},
    )


def _describe(correct: str, accuracy: str, interval: str, *_: str) -> str:
    return f"{correct} test images right, {accuracy} (95% interval {interval})"


def _read_table(text: str, section: str) -> list[list[str]]:
    """Return the cells of the first table of a section, its heads first."""
    body = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    table = body[body.index("| ") :].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    return [row for row in rows if row and set(row[0]) != {"-"}]
