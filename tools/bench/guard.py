"""Measure a guard: false alarms in streams of normal images, and which shifts it notices.

    .venv/bin/python tools/bench/guard.py --shared DIR --out guard.json [--network NAME...]

The forms are fitted to training images, the tables made from validation images, and everything is
counted on test images, which no earlier step used. Streams are drawn with replacement from them.
Resplits draw the guard images from the held-out images, by group, and count on the rest.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import guard_images
import numpy as np
from guard_streams import Scores, Streams, compute_scores, run_independent
from numpy.typing import NDArray

import tcc
from tcc.compiler.guard import fit, measure, plan, stream
from tcc.compiler.guard.fit import Measurements
from tcc.compiler.guard.guard_document import Guard
from tcc.compiler.guard.known_changes import CHANGES, apply_change
from tcc.compiler.guard.picture_features import compute_features
from tcc.compiler.guard.pixel_sums import Pixels, compute_sums
from tcc.compiler.ir.graph import Model

Int64 = NDArray[np.int64]
SHIFTED_IMAGES = 150
NORMAL_BEFORE = 300
"""Normal images before a shift."""
STREAMS = 100
MAX_TRAIN = 400
NOTICED = 0.9
"""Share of streams with an alarm in which a shift counts as noticed."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Case:
    """A network of the benchmark and its images.

    `spec` is a trained network of the zoo, or `train` trains it with this recipe and settings.
    """

    name: str
    data: str
    spec: str
    settings: Mapping[str, object]
    weights: str | None = None


CASES = (
    Case("ddsnet-lung", "lung_histology_lc25000_224", "ddsnet-lung", {}),
    Case("ddsnet-blood", "blood_cells_bccd_128", "ddsnet-blood", {}),
    Case("fastnet-lung", "lung_histology_lc25000_224", "fastnet-lung", {}),
    Case(
        "ddsnet-cervical",
        "cervical_cells_cric_100",
        "ddsnet",
        {"size": 100, "labels": ["ASC-H", "ASC-US", "HSIL", "LSIL", "NILM", "SCC"]},
        "cervical",
    ),
    Case(
        "ddsnet-ultrasound",
        "breast_ultrasound_busi_256",
        "ddsnet",
        {"size": 128, "labels": ["benign", "malignant", "normal"]},
        "ultrasound",
    ),
)


@dataclass(frozen=True, eq=False)
class Set:
    """Measured images with their labels and groups."""

    features: Int64
    channel_sums: Int64
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    changed: Mapping[str, Int64] = field(default_factory=dict)

    def select(self, indices: Int64) -> "Set":
        """Return some of the images."""
        return Set(
            self.features[indices],
            self.channel_sums[indices],
            tuple(self.labels[index] for index in indices),
            tuple(self.groups[index] for index in indices),
        )

    def select_first(self, count: int) -> "Set":
        """Return the first images, with their known changes."""
        return replace(self.select(np.arange(count)), changed=self.changed)

    def join(self, other_set: "Set") -> "Set":
        """Return the images of both."""
        return Set(
            np.concatenate([self.features, other_set.features]),
            np.concatenate([self.channel_sums, other_set.channel_sums]),
            self.labels + other_set.labels,
            self.groups + other_set.groups,
        )

    def to_measurements(self, *, by_group: bool = False) -> Measurements:
        """Return them as a guard is fitted to them."""
        cases = self.groups if by_group else None
        return Measurements("0" * 64, self.features, self.channel_sums, cases, self.changed)


class ImageReader:
    """Measures images for one network."""

    def __init__(self, program: Model, row_step: int | None) -> None:
        self.plan = plan.plan_guard(program.graph)
        self.row_step = row_step or self.plan.row_step
        self._sum_channels = measure.create_channel_reader(program, self.plan)

    def read_images(self, images: list[Pixels]) -> tuple[Int64, Int64]:
        """Return the features and channel sums of images."""
        _, height, width = self.plan.shape
        sums = np.stack([compute_sums(pixels, self.row_step) for pixels in images])
        features = compute_features(sums, height, width, self.row_step)
        return features, np.stack([self._sum_channels(pixels) for pixels in images])

    def read_changes(self, images: list[Pixels]) -> dict[str, Int64]:
        """Return the features of images after each known change."""
        _, height, width = self.plan.shape
        return {
            name: compute_features(
                np.stack([compute_sums(apply_change(name, p), self.row_step) for p in images]),
                height,
                width,
                self.row_step,
            )
            for name in CHANGES
        }


def load_program(case: Case, shared: Path, weights: Path | None) -> Model:
    """Return the int8 program of a case."""
    if case.weights is None:
        return tcc.lower(case.spec, "onnxruntime", precision="int8")
    assert weights is not None
    return tcc.lower(
        tcc.load(case.spec, **case.settings),
        "onnxruntime",
        weights / case.weights / "weights.safetensors",
        precision="int8",
        data=shared / "data" / case.data / "train",
        method="fast",
    )


def measure_case(case: Case, shared: Path, program: Model) -> tuple[dict[str, Set], plan.GuardPlan]:
    """Return the measured splits and shifts of a case."""
    reader, random = ImageReader(program, None), np.random.default_rng(5)
    _, height, width = reader.plan.shape
    size = (height, width)
    folder = shared / "data" / case.data
    with (folder / "index.csv").open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    sets: dict[str, Set] = {}
    for split in SPLITS:
        paths = guard_images.list_images(folder / split)
        infos = [rows[path.relative_to(folder).as_posix()] for path in paths]
        pixels = [guard_images.read_pixels(path, size) for path in paths]
        if split == "train":
            # In random order, since known changes are applied to the first images.
            order = random.permutation(len(paths))[:MAX_TRAIN]
            infos, pixels = [infos[i] for i in order], [pixels[i] for i in order]
        sets[split] = Set(
            *reader.read_images(pixels),
            tuple(info["label"] for info in infos),
            tuple(info["group"] for info in infos),
        )
        if split == "train":
            sets[split] = replace(
                sets[split], changed=reader.read_changes(pixels[: measure.MAX_CHANGED])
            )
    normal = [pixels[index] for index in random.permutation(len(pixels))[:SHIFTED_IMAGES]]
    shifted = {
        name: [change(image, random) for image in normal]
        for name, change in guard_images.CHANGES.items()
    }
    for name, image_folder in guard_images.FOREIGN.items():
        if not image_folder.startswith(case.data):
            paths = guard_images.list_images(shared / "data" / image_folder)
            selected = random.permutation(len(paths))[:SHIFTED_IMAGES]
            shifted[f"foreign: {name}"] = [
                guard_images.read_pixels(paths[index], size) for index in selected
            ]
    drawn_paths = guard_images.list_images(Path(__file__).parents[2] / "zoo" / "samples")
    shifted["foreign: drawn"] = [guard_images.read_pixels(path, size) for path in drawn_paths]
    shifted["uniform noise"] = [guard_images.draw_noise(size, random) for _ in range(100)]
    shifted["flat"] = [guard_images.draw_flat(size, random) for _ in range(100)]
    for name, images in shifted.items():
        sets[name] = Set(*reader.read_images(images), ("",) * len(images), ("",) * len(images))
    return sets, reader.plan


def score(guard: Guard, images: Set) -> Scores:
    """Return the scores of a set."""
    return compute_scores(guard, images.features, images.channel_sums)


def compute_auroc(normal: Int64, shifted: Int64) -> float:
    """Return in which share of pairs the shifted image has the higher score; ties count half."""
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, shifted, "left") + np.searchsorted(ordered, shifted, "right")
    return float(below.mean() / 2 / len(normal))


def count_false_alarms(guard: Guard, normal: Set, random: np.random.Generator) -> dict[str, object]:
    """Return the shares of streams of normal images with an alarm."""
    scores = score(guard, normal)
    result: dict[str, object] = {}
    for length, count in ((100, 300), (1000, 300), (10000, 100)):
        streams = run_independent(guard, scores, length, count, random)
        result[f"independent, {length}"] = float((streams.alarms > 0).mean())
        result["mean e"] = [round(x / length, 3) for x in streams.products]
    labels = np.array(normal.labels)
    for size in (20, 50, 200):
        streams = Streams(guard, 100)
        for _ in range(1000):
            case_labels = labels[random.integers(0, len(labels), 100)]
            cases = [random.choice(np.flatnonzero(labels == label), size) for label in case_labels]
            streams.add_case(scores, np.stack(cases))
        result[f"1,000 cases of {size} images of one class"] = float((streams.alarms > 0).mean())
    streams = Streams(guard, 100)
    for _ in range(1000):
        repeated = random.integers(0, len(labels), (100, 1))
        streams.add_case(scores, np.repeat(repeated, 100, axis=1))
    result["1,000 cases of one image 100 times"] = float((streams.alarms > 0).mean())
    return result


def judge_shifts(
    guard: Guard, sets: Mapping[str, Set], normal: Set, random: np.random.Generator
) -> dict[str, dict[str, object]]:
    """Return how soon each shift is noticed after normal images, and its AUROC by image."""
    normal_scores = score(guard, normal)
    results: dict[str, dict[str, object]] = {}
    for name, images in sets.items():
        if name in SPLITS:
            continue
        shifted = score(guard, images)
        streams = run_independent(guard, normal_scores, NORMAL_BEFORE, STREAMS, random)
        false = streams.alarms > 0
        for _ in range(32):
            streams.add_case(shifted, random.integers(0, shifted.count(), (STREAMS, 1)))
        after = np.where(streams.alarms == 0, 10**6, streams.alarms - NORMAL_BEFORE)
        results[name] = {
            "noticed after 8": float(((after <= 8) & ~false).mean()),
            "noticed after 32": float(((after <= 32) & ~false).mean()),
            "median images": int(np.median(after)) if np.median(after) < 10**6 else None,
            "called network": float(streams.networks.mean()),
            "auroc of picture": round(compute_auroc(normal_scores.picture, shifted.picture), 3),
            "auroc of layer": None
            if shifted.layer is None or normal_scores.layer is None
            else round(compute_auroc(normal_scores.layer, shifted.layer), 3),
        }
    return results


def count_noticed(shifts: Mapping[str, Mapping[str, object]], images: int) -> int:
    """Return how many shifts are noticed after some images."""
    return sum(float(str(shift[f"noticed after {images}"])) >= NOTICED for shift in shifts.values())


def resplit(
    guard_plan: plan.GuardPlan, sets: Mapping[str, Set], count: int, draws: int
) -> dict[str, object]:
    """Return how often the promise is broken over draws of the guard images, by group.

    The promise of a draw: P(alarm in 1,000) <= 0.01, estimated by 100 streams; and mean e <= 1.
    """
    held_out = sets["val"].join(sets["test"])
    groups = np.array(held_out.groups)
    names = np.unique(groups)
    forms = fit.fit_guard(guard_plan, sets["train"].to_measurements(), held_out.to_measurements())
    alarms, above_one, unusual, used = [], 0, [], 0
    for draw in range(draws):
        random = np.random.default_rng(draw)
        order = random.permutation(names)
        selected = np.isin(groups, order[:count])
        rest = held_out.select(np.flatnonzero(~selected))
        if len(set(rest.groups)) < 30:
            break
        used += 1
        guard_images_set = held_out.select(np.flatnonzero(selected))
        guard = fit.refit_tables(forms, guard_images_set.to_measurements(by_group=True))
        scores = score(guard, rest)
        streams = Streams(guard, 100)
        members = [np.flatnonzero(np.array(rest.groups) == name) for name in set(rest.groups)]
        for _ in range(1000):
            cases = random.integers(0, len(members), 100)
            images = [random.choice(members[case]) for case in cases]
            streams.add_case(scores, np.array(images)[:, None])
        alarms.append(float((streams.alarms > 0).mean()))
        above_one += bool((streams.products / 1000 > 1).any())
        readings = stream.read_measurements(guard, rest.features, rest.channel_sums)
        unusual.append(np.mean([reading.is_unusual for reading in readings]))
    return {
        "cases": count,
        "draws": used,
        "false alarms in 1,000, mean": float(np.mean(alarms)) if alarms else None,
        "draws with more than 0.01": int(np.sum(np.array(alarms) > 0.01)),
        "draws with a mean e above 1": above_one,
        "unusual images, mean": float(np.mean(unusual)) if unusual else None,
    }


def judge(
    sets: Mapping[str, Set], guard_plan: plan.GuardPlan, form_images: int | None, draws: int
) -> dict[str, object]:
    """Return the figures of one guard.

    Args:
        sets: Splits and shifts.
        guard_plan: What the guard reads.
        form_images: Number of training images that the forms are fitted to; None for all.
        draws: Number of resplits.
    """
    random = np.random.default_rng(7)
    train = sets["train"]
    if form_images is not None:
        train = train.select_first(form_images)
    calibrated, normal = choose_guard_images(sets)
    guard = fit.fit_guard(guard_plan, train.to_measurements(), calibrated.to_measurements())
    shifts = judge_shifts(guard, sets, normal, random)
    readings = stream.read_measurements(guard, normal.features, normal.channel_sums)
    return {
        "form images": len(train.labels),
        "guard images": guard.calibrated.images,
        "judged images": len(normal.labels),
        "unusual normal images": float(np.mean([reading.is_unusual for reading in readings])),
        "shifts": len(shifts),
        "noticed after 8": count_noticed(shifts, 8),
        "noticed after 32": count_noticed(shifts, 32),
        "false alarms": count_false_alarms(guard, normal, random),
        "by shift": shifts,
        "resplits": [
            resplit(guard_plan, {**sets, "train": train}, count, draws)
            for count in (50, 100, 200)
            if draws and count < len(set(sets["val"].groups + sets["test"].groups))
        ],
    }


def choose_guard_images(sets: Mapping[str, Set]) -> tuple[Set, Set]:
    """Return the guard images and the judged images: disjoint groups of the held-out ones."""
    if len(sets["val"].labels) >= 100:
        return sets["val"], sets["test"]
    held_out = sets["val"].join(sets["test"])
    random = np.random.default_rng(3)
    groups = np.array(held_out.groups)
    first = random.permutation(np.unique(groups))[: len(np.unique(groups)) // 2]
    selected = np.isin(groups, first)
    return held_out.select(np.flatnonzero(selected)), held_out.select(np.flatnonzero(~selected))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--weights", type=Path, help="folder of the networks that are not shipped")
    parser.add_argument("--network", action="append")
    parser.add_argument("--forms", type=int, help="number of images that forms are fitted to")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("guard-bench.json"))
    arguments = parser.parse_args()
    if not (arguments.shared / "data").is_dir():
        sys.stderr.write(f"skipped: no images in {arguments.shared / 'data'}\n")
        return
    results = {}
    for case in CASES:
        if arguments.network and case.name not in arguments.network:
            continue
        if case.weights and not arguments.weights:
            sys.stderr.write(f"skipped {case.name}: give its weights with --weights\n")
            continue
        program = load_program(case, arguments.shared, arguments.weights)
        sets, guard_plan = measure_case(case, arguments.shared, program)
        results[case.name] = judge(sets, guard_plan, arguments.forms, arguments.draws)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
