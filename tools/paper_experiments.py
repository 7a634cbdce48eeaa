#!/usr/bin/env python3
"""Reproduce an experiment of a paper on your images, and write its page.

    python tools/paper_experiments.py NAME --data DIR [--full] [--resume] [--add]
                                           [--threads N] [-o DIR]

NAME is a declaration in `tools/experiments`, or a file of the same form. DIR has the image folders
that the declaration names, each with `train`, `val` and `test`. The short form takes up to an hour
on two cores. `--full` is the papers' form: full-size images, all epochs, three seeds. Trainings run
in `build/experiments`, and `--resume` continues an interrupted run. Results go to
`docs/experiments` as JSON, and `make_experiments.py` writes the page from them. `--add` trains only
the rows that the JSON file does not have yet, on the same images with the same versions.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Set before NumPy loads, as `tcc` does: then sums have the same order on every processor.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import make_experiments
from experiment_images import ExperimentSetup, gather
from experiment_records import (
    DECLARATIONS,
    RESULT_FOLDER,
    ROOT,
    Experiment,
    ExperimentForm,
    ExperimentResults,
    ExperimentRun,
    FormResult,
    ImageCounts,
    IntegerResult,
    RunResult,
    format_record,
    list_runs,
    list_tables,
    read_declaration,
    read_results,
)

from tcc.compiler.cli.app import app
from tcc.compiler.frontend.spec import load
from tcc.compiler.frontend.yaml import parse, to_plain
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.support import json_records
from tcc.compiler.zoo import shipped

BUILD = ROOT / "build" / "experiments"
LOSES = 4
"""The exit code of a build below its accuracy floor."""

Document = Mapping[str, Any]


def run_tcc(*arguments: str | Path, allowed_codes: Sequence[int] = ()) -> Document | None:
    """Return the JSON document of a `tcc` command; None if it exits with an allowed code.

    The command runs in this process, because loading PyTorch takes as long as a short training.

    Raises:
        SystemExit: The command fails.
    """
    line = [*map(str, arguments), "--json"]
    print("$ tcc", *line, file=sys.stderr, flush=True)
    code, printed = _run_app(line)
    if code in allowed_codes:
        return None
    if code:
        sys.exit(f"tcc {' '.join(line)}: exit code {code}")
    document: Document = json.loads(printed)
    return document


def _run_app(line: list[str]) -> tuple[object, str]:
    code: object = None
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            app(line)
    except SystemExit as end:
        code = end.code
    return code, out.getvalue()


def write_recipe(run: ExperimentRun, form: ExperimentForm, to: Path) -> Path:
    """Write the recipe of a run, a shipped recipe with changed keys; return the file."""
    recipe_tree: Any = to_plain(parse(shipped.list_recipes()[run.recipe].read_text(), run.recipe))
    epochs = {"epochs": str(form.epochs)} if form.epochs else {}
    for key, setting in {**epochs, **form.recipe, **run.row.recipe}.items():
        *sections, leaf_key = key.split(".")
        part: Any = recipe_tree
        for section in sections:
            part = part.setdefault(section, {})
        holder: Any = to_plain(parse(f"it: {setting}", key))
        part[leaf_key] = holder["it"]
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(recipe_tree))
    return to


def make_settings(run: ExperimentRun, setup: ExperimentSetup) -> dict[str, str]:
    """Return the spec's settings for a run."""
    classes = sorted(
        class_folder.name for class_folder in (setup.get_image_folder(run.data) / "train").iterdir()
    )
    fitted = {"classes": str(len(classes)), "labels": f"[{', '.join(classes)}]"}
    size = {"size": str(setup.form.size)} if setup.form.size else {}
    return {**fitted, **size, **run.row.settings}


def measure_run(run: ExperimentRun, setup: ExperimentSetup) -> RunResult:
    """Train and evaluate a network, or return the cached result."""
    folder, result_file = setup.folder / run.key, setup.folder / run.key / "result.json"
    if result_file.exists():
        cached_result: RunResult = json_records.decode(
            RunResult, json.loads(result_file.read_text())
        )
        return cached_result
    sets = [
        w for n, setting in make_settings(run, setup).items() for w in ("--set", f"{n}={setting}")
    ]
    spec = shipped.list_specs().get(run.row.spec, Path(run.row.spec))
    trained = folder / "training"
    begun = any((trained / name).exists() for name in ("checkpoint.safetensors", "report.json"))
    run_tcc(
        "train", spec, *sets, "--data", setup.get_image_folder(run.data),
        "--recipe", write_recipe(run, setup.form, folder / "recipe.yaml"), "--seed", str(run.seed),
        "--threads", str(setup.threads), "-o", trained, *(["--resume"] if begun else []),
    )  # fmt: skip
    report = json.loads((trained / "report.json").read_text())
    final_metrics = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    weights = trained / "weights.safetensors"
    run_result = RunResult(
        compute_cost(load(spec, make_settings(run, setup)).graph).params,
        report["epochs"],
        final_metrics["accuracy"],
        report["val"]["accuracy"],
        report["test"]["confusion"],
        measure_int8(run, setup, [spec, *sets, "--weights", weights], folder)
        if run.integers
        else None,
        measure_forms(run, setup, weights) if run.forms else {},
    )
    result_file.write_text(format_record(run_result))
    return run_result


def measure_int8(
    run: ExperimentRun, setup: ExperimentSetup, network: Sequence[str | Path], folder: Path
) -> IntegerResult | None:
    """Return the result of the int8 model at any accuracy drop; None if the build fails."""
    images, scales = setup.get_image_folder(run.data), folder / "calibration.json"
    run_tcc(
        "calibrate",
        *network,
        "--data",
        setup.get_calibration_folder(run.data),
        "--target",
        "onnxruntime",
        "--threads",
        str(setup.threads),
        "-o",
        scales,
    )
    floors = ("--floor", "min_cosine=0", "--floor", "min_correlation=0")
    built = run_tcc(
        "build", *network, "--calibration", scales, "--precision", "int8", *floors,
        "--target", "onnxruntime", "-o", folder / "bundles", allowed_codes=(LOSES,),
    )  # fmt: skip
    if built is None:
        return None
    evaluation = run_tcc("eval", built["bundles"][0]["path"], "--data", images / "test")
    document = json.loads(scales.read_text())
    (output,) = document["judged"][document["used"]].values()
    layers: Document = {}
    if run.layers:
        layer_errors = run_tcc(
            "plot", "errors", *network, "--calibration", scales, "--data", images / "test",
            "-o", folder / "layers.svg",
        )  # fmt: skip
        layer_records = (layer_errors or {})["layers"]
        layers = {
            layer_record["name"]: layer_record["cosine"]
            for layer_record in layer_records
            if layer_record["op"] != "input"
        }
    return IntegerResult((evaluation or {})["confusion"], output["cosine"], layers)


def measure_forms(
    run: ExperimentRun, setup: ExperimentSetup, weights: Path
) -> Mapping[str, FormResult]:
    """Return the accuracy and size of the LiteRT files."""
    size = {"size": str(setup.form.size)} if setup.form.size else {}
    spec_settings = (f"{n}={setting}" for n, setting in {**size, **run.row.settings}.items())
    images, network = setup.get_image_folder(run.data), ",".join([run.row.spec, *spec_settings])
    command: list[str | Path] = [
        sys.executable, ROOT / "tools" / "case_study.py", "--data", images / "test",
        "--calibrate-with", setup.get_calibration_folder(run.data), "--network", f"it={network}",
        "--weights", f"it={weights}", "--format", "json",
    ]  # fmt: skip
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    form_figures = json.loads(process.stdout)["networks"][0]["forms"]
    return {name: FormResult(form["correct"], form["bytes"]) for name, form in form_figures.items()}


def read_image_counts(report: Document) -> ImageCounts:
    """Return the image counts in a training report."""
    image_figures = {key: report["data"][key] for key in ("classes", "images", "digests")}
    image_counts: ImageCounts = json_records.decode(ImageCounts, image_figures)
    return image_counts


def run_experiment(
    declared: Experiment, name: str, setup: ExperimentSetup, previous: ExperimentResults | None
) -> ExperimentResults:
    """Run an experiment's trainings one by one; return all results.

    Raises:
        SystemExit: The earlier results are from other images, versions or threads.
    """
    run_results: dict[str, RunResult] = {}
    earlier = previous or ExperimentResults(name, {}, setup.threads, {}, {})
    image_counts, versions = dict(earlier.data), earlier.made_with
    if (earlier.form, earlier.threads) != (name, setup.threads):
        sys.exit(
            f"the earlier results are of the form {earlier.form}, on {earlier.threads} threads; "
            "use the same, or run without --add"
        )
    for run in list_runs(declared, setup.form):
        if run.key in earlier.runs:
            run_results[run.key] = earlier.runs[run.key]
            continue
        run_results[run.key] = measure_run(run, setup)
        report = json.loads((setup.folder / run.key / "training" / "report.json").read_text())
        current_counts = read_image_counts(report)
        if (
            image_counts.setdefault(run.data, current_counts) != current_counts
            or (versions or report["made_with"]) != report["made_with"]
        ):
            sys.exit("the earlier results are from other images or versions: run without --add")
        versions = report["made_with"]
    return ExperimentResults(name, versions, setup.threads, image_counts, run_results)


def prepare_folder(folder: Path, form: ExperimentForm, resume: bool) -> None:
    """Create the folder of a run, or check that it can be resumed.

    Raises:
        SystemExit: The folder has another run, or nothing to resume.
    """
    form_file, form_text = folder / "form.json", format_record(form)
    if resume != form_file.exists():
        sys.exit(
            f"{folder}: "
            + (
                "nothing to resume; run without --resume"
                if resume
                else "a run is unfinished here: add --resume, or delete the folder"
            )
        )
    if resume and form_file.read_text() != form_text:
        sys.exit(
            f"{folder}: this run has other images, epochs or seeds: delete it, or restore them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    form_file.write_text(form_text)


def main() -> int:
    """Run the selected experiment; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=RESULT_FOLDER)
    parser.add_argument("--build", type=Path, default=BUILD)
    options = parser.parse_args()
    path = Path(options.name)
    path = path if path.suffix else DECLARATIONS / f"{options.name}.yaml"
    if not path.is_file():
        names = sorted(source.stem for source in DECLARATIONS.glob("*.yaml"))
        sys.exit(f"unknown experiment {options.name}; the experiments are {', '.join(names)}")
    declared, name = read_declaration(path), "full" if options.full else "short"
    form, folder = (
        declared.full if options.full else declared.short,
        options.build / f"{path.stem}-{name}",
    )
    prepare_folder(folder, form, options.resume)
    setup = ExperimentSetup(folder, form, options.threads)
    for source in dict.fromkeys(table.data for table in list_tables(declared, form)):
        gather(source, declared.data[source], options.data, setup)
    figures = options.output / f"{path.stem}.json"
    experiment_results = run_experiment(
        declared, name, setup, read_results(figures) if options.add else None
    )
    options.output.mkdir(parents=True, exist_ok=True)
    figures.write_text(format_record(experiment_results))
    for file, page_text in make_experiments.make_pages(
        declared, experiment_results, options.output / path.stem
    ).items():
        file.write_text(page_text)
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
