"""Copy the images of an experiment: where a run finds them, and which ones it uses."""

import csv
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiment_records import CALIBRATION, SPLITS, ExperimentForm, ImageSource

from tcc.compiler.train import image_table


@dataclass(frozen=True, slots=True)
class ExperimentSetup:
    """Where an experiment runs, in which form and with how many threads."""

    folder: Path
    form: ExperimentForm
    threads: int

    def get_image_folder(self, data_set_name: str) -> Path:
        """Return the image folder of a dataset in this form."""
        return self.folder / "data" / data_set_name

    def get_calibration_folder(self, data_set_name: str) -> Path:
        """Return the folder of the training images that calibrate int8."""
        return self.folder / CALIBRATION / data_set_name


def gather(name: str, source: ImageSource, data_root: Path, setup: ExperimentSetup) -> None:
    """Copy an evenly spaced subset of a dataset's images, with the table of their groups.

    Raises:
        SystemExit: The dataset has no folder for a split.
    """
    folder = data_root / source.folder
    if not all((folder / split_name).is_dir() for split_name in SPLITS):
        sys.exit(f"{folder}: a folder of {', '.join(SPLITS)} is missing")
    class_folders = {
        class_folder.name: (class_folder.name,)
        for class_folder in (folder / "train").iterdir()
        if class_folder.is_dir()
    }
    classes = dict(sorted((source.classes or class_folders).items()))
    goals = [
        (split_name, split_name, setup.get_image_folder(name) / split_name) for split_name in SPLITS
    ]
    groups = read_groups(folder)
    lines = []
    for split_name, kind, to in [
        *goals,
        ("train", CALIBRATION, setup.get_calibration_folder(name)),
    ]:
        for label, parts in classes.items():
            image_files = sorted(
                path for part in parts for path in (folder / split_name / part).iterdir()
            )
            count = min(setup.form.images.get(kind, len(image_files)), len(image_files))
            (to / label).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path = image_files[number * len(image_files) // count]
                copy = to / label / f"{path.parent.name}-{path.name}"
                shutil.copyfile(path, copy)
                group = groups.get(path.relative_to(folder).as_posix())
                if kind == split_name and group:
                    lines.append(
                        (
                            copy.relative_to(setup.get_image_folder(name)).as_posix(),
                            label,
                            group,
                            split_name,
                        )
                    )
    if lines:
        with (setup.get_image_folder(name) / image_table.NAME).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([image_table.COLUMNS, *lines])


def read_groups(folder: Path) -> Mapping[str, str]:
    """Return the groups of a dataset's images by file, as far as its table lists them."""
    table = folder / image_table.NAME
    lines = image_table.read_table(table) if table.exists() else ()
    return {line.file: line.group for line in lines if line.group}
