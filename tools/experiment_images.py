"""The images of an experiment: where a run has them, and which of those at hand they are."""

import csv
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiment_records import CALIBRATION, SIDES, ExperimentForm, ImageSource

from tcc.compiler.train import image_table


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where an experiment runs, in which form and with how many threads."""

    folder: Path
    form: ExperimentForm
    threads: int

    def images(self, data: str) -> Path:
        """Return the folder of a data set as this form sees it."""
        return self.folder / "data" / data

    def calibration(self, data: str) -> Path:
        """Return those of its training images that integers are calibrated with."""
        return self.folder / CALIBRATION / data


def gather(name: str, source: ImageSource, data: Path, at: Workshop) -> None:
    """Copy a data set's images, as many as the form has and evenly chosen, and whom they are of.

    Raises:
        SystemExit: They are not there.
    """
    folder = data / source.folder
    if not all((folder / side).is_dir() for side in SIDES):
        sys.exit(f"{folder}: there is no {', '.join(SIDES)}")
    found = {each.name: (each.name,) for each in (folder / "train").iterdir() if each.is_dir()}
    classes = dict(sorted((source.classes or found).items()))
    goals = [(side, side, at.images(name) / side) for side in SIDES]
    groups = table_groups(folder)
    lines = []
    for side, kind, to in [*goals, ("train", CALIBRATION, at.calibration(name))]:
        for label, parts in classes.items():
            listed = sorted(path for part in parts for path in (folder / side / part).iterdir())
            count = min(at.form.images.get(kind, len(listed)), len(listed))
            (to / label).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path = listed[number * len(listed) // count]
                copy = to / label / f"{path.parent.name}-{path.name}"
                shutil.copyfile(path, copy)
                group = groups.get(path.relative_to(folder).as_posix())
                if kind == side and group:
                    lines.append((copy.relative_to(at.images(name)).as_posix(), label, group, side))
    if lines:
        with (at.images(name) / image_table.NAME).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([image_table.COLUMNS, *lines])


def table_groups(folder: Path) -> Mapping[str, str]:
    """Return the groups of a data set's images by their files, where its table says any."""
    table = folder / image_table.NAME
    lines = image_table.read_table(table) if table.exists() else ()
    return {line.file: line.group for line in lines if line.group}
