"""Reproduce Table 2 of the quantisation study: accuracy and size of each TFLite form.

    python tools/case_study.py --data DIR [--weights NAME=FILE ...] [--calibrate-with DIR]
        [--images N] [--network NAME=SPEC[,PARAMETER=VALUE...] ...] [--format text]

`--data` is a folder of class folders, or an .npz file with `labels`. The sorted folder names are
the classes, and must have the order of the weights. LiteRT runs the file of every form on the same
images. int8 is calibrated with other images: those of `--calibrate-with`, or three in four of the
data. In the second case, the remaining fourth evaluates all forms. Networks without weights get
random ones, with a warning and a mark in the table. Their sizes are right, their accuracies are
meaningless. A size is the file size in MB of 10^6 bytes. The default networks are those that the
paper's text describes; `--network` selects others. `VGG16=vgg16_bn_gap,cam=1024` has the printed
size.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tcc.compiler.bundle import bundle_folder, manifest
from tcc.compiler.cli import failures
from tcc.compiler.data.dataset import DataSet, read_dataset
from tcc.compiler.driver import evaluation, int8_program, labelled_images, pipeline
from tcc.compiler.driver.build_plan import Int8Programs
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.ir.device import Plan
from tcc.compiler.quant.methods import DEFAULT
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.reference.accuracy_floor import AccuracyFloor
from tcc.compiler.support.console import Report, Stages, format_table
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.targets import devices
from tcc.compiler.zoo import shipped

NETWORKS = {"VGG16": "vgg16_bn_gap", "GoogLeNet": "googlenet", "ResNet34": "resnet34"}
FORMS = {
    "fp32": "No opt. (FP32)",
    "dynamic": "Dynamic-Range",
    "fp16": "Half-Precision (FP16)",
    "int8": "Full-Integer (INT8)",
}
"""The rows of the table, in the paper's order."""
HERE = make_file_span("command line")


@dataclass(frozen=True, slots=True)
class Form:
    """A file of one form: its accuracy, the number of correct images and its size in bytes."""

    accuracy: float
    correct: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Network:
    """A network's column: its forms and the origin of its weights."""

    name: str
    spec: str
    weights: str
    forms: Mapping[str, Form]


@dataclass(frozen=True, slots=True)
class Study:
    """The evaluation images, the calibration images and the classes as settings of the spec."""

    path: Path
    held_out_images: DataSet
    calibration_images: DataSet
    classes: Mapping[str, str]


def main() -> None:
    """Print the table."""
    options = _parse_arguments()
    report = Report()
    networks = dict(_split_setting(text) for text in options.network) or NETWORKS
    weights = dict(_split_setting(text) for text in options.weights)
    if unknown_names := sorted(set(weights) - set(networks)):
        known_ones = ", ".join(networks)
        raise fail(
            "E0601",
            f"--weights names the network `{unknown_names[0]}`; the networks are {known_ones}",
            HERE,
        )
    image_sets = read_study(options.data, options.calibrate_with, options.images)
    report.warn_grouped(
        dict.fromkeys(
            (*image_sets.held_out_images.warnings, *image_sets.calibration_images.warnings)
        )
    )
    columns = []
    with report.track_stages() as stages:
        for name, spec in networks.items():
            columns.append(measure_network(name, spec, weights.get(name), image_sets, stages))
            if columns[-1].weights == "random":
                report.warn_text(
                    f"{name}: random weights, so its accuracies are meaningless; "
                    f"give --weights {name}=FILE"
                )
        stages.finish_stage()
    print(FORMATTERS[options.format](columns, image_sets))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--calibrate-with", type=Path, metavar="DIR")
    parser.add_argument(
        "--images", type=int, metavar="N", help="use the first N images of each set"
    )
    parser.add_argument("--network", action="append", default=[], metavar="NAME=SPEC[,P=VALUE...]")
    parser.add_argument("--format", choices=sorted(FORMATTERS), default="text")
    return parser.parse_args()


def _split_setting(text: str) -> tuple[str, str]:
    name, equals, setting = text.partition("=")
    if not equals:
        raise fail("E0601", f"`{text}` does not have the form NAME=VALUE", HERE)
    return name, setting


def read_study(path: Path, calibration: Path | None, images: int | None) -> Study:
    """Return the evaluation images, the calibration images and the classes as settings.

    Raises:
        UserError: A path is not a dataset.
    """
    data_set = read_dataset(path)
    fit_images, held_out_images = (
        (read_dataset(calibration), data_set) if calibration else data_set.split()
    )
    labels = sorted({image.label for image in data_set.items if image.label is not None})
    classes = {"classes": str(len(labels)), "labels": f"[{', '.join(labels)}]"}
    if all(label.isdecimal() for label in labels):
        classes = {"classes": str(1 + max(map(int, labels), default=0))}
    return Study(
        path, held_out_images.select_first(images), fit_images.select_first(images), classes
    )


def measure_network(
    name: str, spec: str, weights: str | None, image_sets: Study, stages: Stages
) -> Network:
    """Return a network's column.

    Raises:
        UserError: The spec or the weights are wrong, or do not fit the images.
    """
    file, *settings = spec.split(",")
    network = load(
        shipped.find_spec(file, HERE), {**image_sets.classes, **dict(map(_split_setting, settings))}
    )
    labelled_images.label_images(
        image_sets.held_out_images, manifest.build_output_contracts(network.graph), image_sets.path
    )  # check the labels before the slow steps
    if weights:
        weight_source = pipeline.read_weights(Path(weights), network.graph)
    else:
        weight_source = pipeline.create_random_weights(network.graph)
    forms = {
        form: _measure_form(form, network, weight_source, image_sets, stages) for form in FORMS
    }
    return Network(name, spec, weight_source.origin.origin, forms)


def _measure_form(
    form: str, spec: Spec, weight_source: WeightSource, image_sets: Study, stages: Stages
) -> Form:
    """Build one form and evaluate its file."""
    device = devices.find("tflite", HERE)
    plan = Plan(device, device.get_precision(form))
    integers = (
        _build_int8(spec, weight_source, image_sets, stages) if plan.precision.integer else None
    )
    (contents,) = pipeline.build(spec, weight_source, [plan], stages, integers)
    size = sum(
        len(content) for path, content in contents.files.items() if path.startswith("model/")
    )
    with tempfile.TemporaryDirectory() as folder:
        built = bundle_folder.read_bundle(
            bundle_folder.write_bundle(contents, Path(folder)), devices.find_precision, None
        )
        labelled = labelled_images.label_images(
            image_sets.held_out_images, built.manifest.outputs, image_sets.path
        )
        scores = evaluation.evaluate_artifact(built, device, labelled, stages).scores
    return Form(scores.accuracy, scores.correct, size)


def _build_int8(
    spec: Spec, weight_source: WeightSource, image_sets: Study, stages: Stages
) -> Int8Programs:
    """Return the integer program at any accuracy drop: the table reports that drop."""
    request = pipeline.CalibrationRequest(
        int8_program.ANY_TARGET, DEFAULT, RunOptions(progress=stages)
    )
    source = int8_program.from_images(spec, weight_source, image_sets.calibration_images, request)
    lowered_model = pipeline.lower_for_int8(spec, weight_source)
    no_floor = AccuracyFloor(cosine=-1.0, correlation=0.0, images=0)
    return int8_program.build_programs(lowered_model, source, no_floor, (False,), progress=stages)


def format_text(networks: Sequence[Network], image_sets: Study) -> str:
    """Return the table for a terminal."""
    return "\n".join(
        [
            *format_table(_list_columns(networks), _list_rows(networks)),
            "",
            *_list_notes(networks, image_sets),
        ]
    )


def format_markdown(networks: Sequence[Network], image_sets: Study) -> str:
    """Return the table in markdown."""
    columns = _list_columns(networks)
    lines = [f"| {' | '.join(row)} |" for row in (columns, *_list_rows(networks))]
    rule = f"|---|{'---:|' * (len(columns) - 1)}"
    return "\n".join([lines[0], rule, *lines[1:], "", *_list_notes(networks, image_sets)])


def format_json(networks: Sequence[Network], image_sets: Study) -> str:
    """Return all results as JSON."""
    images = {
        "judge": len(image_sets.held_out_images),
        "calibration": len(image_sets.calibration_images),
    }
    header = {
        "data": str(image_sets.path),
        "digest": image_sets.held_out_images.digest,
        "images": images,
    }
    return json.dumps(
        {**header, "networks": [_to_document(network) for network in networks]}, indent=2
    )


FORMATTERS = {"text": format_text, "markdown": format_markdown, "json": format_json}


def _list_columns(networks: Sequence[Network]) -> list[str]:
    marked = [f"{n.name}*" if n.weights == "random" else n.name for n in networks]
    return [
        "Opt. type",
        *(f"{name} {figure_name}" for name in marked for figure_name in ("Acc.", "MB")),
    ]


def _list_rows(networks: Sequence[Network]) -> list[list[str]]:
    return [
        [title, *(cell for network in networks for cell in _format_cells(network.forms[form]))]
        for form, title in FORMS.items()
    ]


def _format_cells(form: Form) -> tuple[str, str]:
    megabytes = form.bytes / 1e6
    return f"{form.accuracy:.1%}", f"{megabytes:.1f}" if megabytes >= 10 else f"{megabytes:.3f}"


def _list_notes(networks: Sequence[Network], image_sets: Study) -> list[str]:
    shared_images = set(image_sets.held_out_images.digests) & set(
        image_sets.calibration_images.digests
    )
    notes = [
        f"{len(image_sets.held_out_images)} images of {image_sets.path}; int8 calibrated "
        f"with {len(image_sets.calibration_images)}"
        + (
            f", {len(shared_images)} of them are evaluation images too"
            if shared_images
            else " others"
        )
    ]
    if any(network.weights == "random" for network in networks):
        notes.append("* random weights: the accuracies are meaningless")
    return notes


def _to_document(network: Network) -> dict[str, Any]:
    full = network.forms["fp32"].bytes
    forms = {n: {**asdict(f), "of_fp32": f.bytes / full} for n, f in network.forms.items()}
    return {"name": network.name, "spec": network.spec, "weights": network.weights, "forms": forms}


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(failures.report(error, sys.argv[1:]))
