"""The quantisation study's Table 2 anew: accuracy and size of its networks in every TFLite form.

    python tools/case_study.py --data DIR [--weights NAME=FILE ...] [--calibrate-with DIR]
        [--images N] [--network NAME=SPEC[,PARAMETER=VALUE...] ...] [--format text]

`--data` are labelled images: a folder of class folders, whose sorted names are the classes, in the
order that the weights have them, or an .npz file with `labels`. Every form is judged by its own
file, run by LiteRT, on the same images. int8 is calibrated with other images: `--calibrate-with`,
or else three in four of the data, and then all forms are judged by the fourth. Networks without
weights get random ones, which is said and marked; their sizes are right, their accuracies mean
nothing. A size is that of the file, in MB of 10^6 bytes. The networks are those that the paper's
text describes, unless `--network` names others: `VGG16=vgg16_bn_gap,cam=1024` has its printed size.
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
"""The table's rows, in its order."""
HERE = make_file_span("command line")


@dataclass(frozen=True, slots=True)
class Form:
    """A file of one form: how many images it gets right, and its bytes."""

    accuracy: float
    correct: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Network:
    """A network's column: its forms, and the origin of its weights."""

    name: str
    spec: str
    weights: str
    forms: Mapping[str, Form]


@dataclass(frozen=True, slots=True)
class Study:
    """The images: those that judge, those that int8 is calibrated with, the classes as settings."""

    path: Path
    judge: DataSet
    calibration: DataSet
    classes: Mapping[str, str]


def main() -> None:
    """Print the table."""
    asked = _arguments()
    report = Report()
    networks = dict(_named(text) for text in asked.network) or NETWORKS
    weights = dict(_named(text) for text in asked.weights)
    if strange := sorted(set(weights) - set(networks)):
        known_ones = ", ".join(networks)
        raise fail("E0601", f"--weights for `{strange[0]}`: the networks are {known_ones}", HERE)
    made = study(asked.data, asked.calibrate_with, asked.images)
    report.warn_grouped(dict.fromkeys((*made.judge.warnings, *made.calibration.warnings)))
    found = []
    with report.track_stages() as stages:
        for name, spec in networks.items():
            found.append(measured(name, spec, weights.get(name), made, stages))
            if found[-1].weights == "random":
                report.warn_text(f"{name}: its weights are random; its accuracies mean nothing")
        stages.finish_stage()
    print(SHOWN[asked.format](found, made))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--calibrate-with", type=Path, metavar="DIR")
    parser.add_argument("--images", type=int, metavar="N", help="take N of each set of images")
    parser.add_argument("--network", action="append", default=[], metavar="NAME=SPEC[,P=VALUE...]")
    parser.add_argument("--format", choices=sorted(SHOWN), default="text")
    return parser.parse_args()


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise fail("E0601", f"`{text}` is not NAME=VALUE", HERE)
    return name, value


def study(path: Path, calibration: Path | None, images: int | None) -> Study:
    """Return the images that judge, those that calibrate, and the classes as settings.

    Raises:
        UserError: They are no data sets.
    """
    data = read_dataset(path)
    learn, judge = (read_dataset(calibration), data) if calibration else data.split()
    labels = sorted({item.label for item in data.items if item.label is not None})
    classes = {"classes": str(len(labels)), "labels": f"[{', '.join(labels)}]"}
    if all(label.isdecimal() for label in labels):
        classes = {"classes": str(1 + max(map(int, labels), default=0))}
    return Study(path, judge.select_first(images), learn.select_first(images), classes)


def measured(name: str, spec: str, weights: str | None, made: Study, stages: Stages) -> Network:
    """Return a network's column.

    Raises:
        UserError: The spec or the weights are wrong, or do not fit the images.
    """
    file, *settings = spec.split(",")
    network = load(shipped.find_spec(file, HERE), {**made.classes, **dict(map(_named, settings))})
    labelled_images.label_images(
        made.judge, manifest.build_output_contracts(network.graph), made.path
    )  # before any work
    if weights:
        given = pipeline.read_weights(Path(weights), network.graph)
    else:
        given = pipeline.create_random_weights(network.graph)
    forms = {form: _form(form, network, given, made, stages) for form in FORMS}
    return Network(name, spec, given.origin.origin, forms)


def _form(form: str, spec: Spec, given: WeightSource, made: Study, stages: Stages) -> Form:
    """Build a form and judge its file."""
    device = devices.find("tflite", HERE)
    plan = Plan(device, device.get_precision(form))
    integers = _integers(spec, given, made, stages) if plan.precision.integer else None
    (contents,) = pipeline.build(spec, given, [plan], stages, integers)
    size = sum(len(data) for path, data in contents.files.items() if path.startswith("model/"))
    with tempfile.TemporaryDirectory() as folder:
        built = bundle_folder.read_bundle(
            bundle_folder.write_bundle(contents, Path(folder)), devices.find_precision, None
        )
        labelled = labelled_images.label_images(made.judge, built.manifest.outputs, made.path)
        scores = evaluation.evaluate_artifact(built, device, labelled, stages).scores
    return Form(scores.accuracy, scores.correct, size)


def _integers(spec: Spec, given: WeightSource, made: Study, stages: Stages) -> Int8Programs:
    """Return the integer program, whatever it loses: that is what the table shows."""
    wanted = pipeline.CalibrationRequest(
        int8_program.ANY_TARGET, DEFAULT, RunOptions(progress=stages)
    )
    source = int8_program.from_images(spec, given, made.calibration, wanted)
    ready = pipeline.lower_for_int8(spec, given)
    none = AccuracyFloor(cosine=-1.0, correlation=0.0, images=0)
    return int8_program.build_programs(ready, source, none, (False,), progress=stages)


def as_text(found: Sequence[Network], made: Study) -> str:
    """Return the table for a terminal."""
    return "\n".join([*format_table(_columns(found), _rows(found)), "", *_notes(found, made)])


def as_markdown(found: Sequence[Network], made: Study) -> str:
    """Return the table in markdown."""
    columns = _columns(found)
    lines = [f"| {' | '.join(row)} |" for row in (columns, *_rows(found))]
    rule = f"|---|{'---:|' * (len(columns) - 1)}"
    return "\n".join([lines[0], rule, *lines[1:], "", *_notes(found, made)])


def as_json(found: Sequence[Network], made: Study) -> str:
    """Return all figures."""
    images = {"judge": len(made.judge), "calibration": len(made.calibration)}
    about = {"data": str(made.path), "digest": made.judge.digest, "images": images}
    return json.dumps({**about, "networks": [_document(each) for each in found]}, indent=2)


SHOWN = {"text": as_text, "markdown": as_markdown, "json": as_json}


def _columns(found: Sequence[Network]) -> list[str]:
    marked = [f"{n.name}*" if n.weights == "random" else n.name for n in found]
    return ["Opt. type", *(f"{name} {what}" for name in marked for what in ("Acc.", "MB"))]


def _rows(found: Sequence[Network]) -> list[list[str]]:
    return [
        [title, *(cell for network in found for cell in _cells(network.forms[form]))]
        for form, title in FORMS.items()
    ]


def _cells(form: Form) -> tuple[str, str]:
    megabytes = form.bytes / 1e6
    return f"{form.accuracy:.1%}", f"{megabytes:.1f}" if megabytes >= 10 else f"{megabytes:.3f}"


def _notes(found: Sequence[Network], made: Study) -> list[str]:
    same = set(made.judge.digests) & set(made.calibration.digests)
    notes = [
        f"{len(made.judge)} images of {made.path}; int8 calibrated with {len(made.calibration)}"
        + (f", {len(same)} of which judge too" if same else " others")
    ]
    if any(network.weights == "random" for network in found):
        notes.append("* random weights: the accuracies mean nothing")
    return notes


def _document(network: Network) -> dict[str, Any]:
    full = network.forms["fp32"].bytes
    forms = {n: {**asdict(f), "of_fp32": f.bytes / full} for n, f in network.forms.items()}
    return {"name": network.name, "spec": network.spec, "weights": network.weights, "forms": forms}


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(failures.report(error, sys.argv[1:]))
