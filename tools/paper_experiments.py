#!/usr/bin/env python3
"""Run an experiment of the papers anew on images at hand, and write its page.

    python tools/paper_experiments.py NAME --data DIR [--full] [--resume] [--add]
                                           [--threads N] [-o DIR]

NAME is a declaration of `tools/experiments`, or a file like one; DIR has the folders of images that
it names, each with `train`, `val` and `test`. The short form fits into an hour on two cores;
`--full` is the papers': whole images, all epochs, three seeds. Trainings run in
`build/experiments`; an interrupted run goes on with `--resume`. Figures go to `docs/experiments` as
JSON, from which `make_experiments.py` makes the page. With `--add`, what that JSON has already is
not trained again: for rows that are new, on the same images with the same versions.
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

# Before NumPy is loaded, as `tcc` itself does: sums in one order, whatever the processor has.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import make_experiments
from experiment_images import Workshop, gather
from experiment_records import (
    DECLARATIONS,
    RESULTS,
    ROOT,
    Experiment,
    ExperimentForm,
    ExperimentResults,
    ExperimentRun,
    FormResult,
    ImageCounts,
    IntegerResult,
    RunResult,
    declaration,
    results,
    runs,
    tables,
    text,
)

from tcc.compiler.cli.app import app
from tcc.compiler.frontend.spec import load
from tcc.compiler.frontend.yaml import parse, to_plain
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.support import json_records
from tcc.compiler.zoo import shipped

BUILD = ROOT / "build" / "experiments"
LOSES = 4
"""The exit code of integers that are not written."""

Document = Mapping[str, Any]


def called(*words: str | Path, may: Sequence[int] = ()) -> Document | None:
    """Return the document of a `tcc` command; None if it ends with a code that it may.

    It runs in this process: loading PyTorch takes as long as a short training.

    Raises:
        SystemExit: It fails.
    """
    line = [*map(str, words), "--json"]
    print("$ tcc", *line, file=sys.stderr, flush=True)
    code, said = _ended(line)
    if code in may:
        return None
    if code:
        sys.exit(f"tcc {' '.join(line)}: exit code {code}")
    found: Document = json.loads(said)
    return found


def _ended(line: list[str]) -> tuple[object, str]:
    code: object = None
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            app(line)
    except SystemExit as end:
        code = end.code
    return code, out.getvalue()


def recipe(run: ExperimentRun, form: ExperimentForm, to: Path) -> Path:
    """Write the recipe of a run, a known one with other keys; return the file."""
    found: Any = to_plain(parse(shipped.list_recipes()[run.recipe].read_text(), run.recipe))
    epochs = {"epochs": str(form.epochs)} if form.epochs else {}
    for key, value in {**epochs, **form.recipe, **run.row.recipe}.items():
        *sections, last = key.split(".")
        part: Any = found
        for section in sections:
            part = part.setdefault(section, {})
        holder: Any = to_plain(parse(f"it: {value}", key))
        part[last] = holder["it"]
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(found))
    return to


def settings(run: ExperimentRun, at: Workshop) -> dict[str, str]:
    """Return the spec's settings in a run."""
    classes = sorted(each.name for each in (at.images(run.data) / "train").iterdir())
    fitted = {"classes": str(len(classes)), "labels": f"[{', '.join(classes)}]"}
    size = {"size": str(at.form.size)} if at.form.size else {}
    return {**fitted, **size, **run.row.settings}


def measured(run: ExperimentRun, at: Workshop) -> RunResult:
    """Train a network and judge it; what was trained before is not trained again."""
    folder, kept = at.folder / run.key, at.folder / run.key / "result.json"
    if kept.exists():
        found: RunResult = json_records.decode(RunResult, json.loads(kept.read_text()))
        return found
    sets = [w for n, value in settings(run, at).items() for w in ("--set", f"{n}={value}")]
    spec = shipped.list_specs().get(run.row.spec, Path(run.row.spec))
    trained = folder / "training"
    begun = any((trained / name).exists() for name in ("checkpoint.safetensors", "report.json"))
    called(
        "train", spec, *sets, "--data", at.images(run.data),
        "--recipe", recipe(run, at.form, folder / "recipe.yaml"), "--seed", str(run.seed),
        "--threads", str(at.threads), "-o", trained, *(["--resume"] if begun else []),
    )  # fmt: skip
    report = json.loads((trained / "report.json").read_text())
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    weights = trained / "weights.safetensors"
    result = RunResult(
        compute_cost(load(spec, settings(run, at)).graph).params,
        report["epochs"],
        last["accuracy"],
        report["val"]["accuracy"],
        report["test"]["confusion"],
        integers(run, at, [spec, *sets, "--weights", weights], folder) if run.integers else None,
        forms(run, at, weights) if run.forms else {},
    )
    kept.write_text(text(result))
    return result


def integers(
    run: ExperimentRun, at: Workshop, network: Sequence[str | Path], folder: Path
) -> IntegerResult | None:
    """Return what the integer program does, whatever it loses; None where it cannot be written."""
    images, scales = at.images(run.data), folder / "calibration.json"
    called(
        "calibrate", *network, "--data", at.calibration(run.data), "--target", "onnxruntime",
        "--threads", str(at.threads), "-o", scales,
    )  # fmt: skip
    floors = ("--floor", "min_cosine=0", "--floor", "min_correlation=0")
    built = called(
        "build", *network, "--calibration", scales, "--precision", "int8", *floors,
        "--target", "onnxruntime", "-o", folder / "bundles", may=(LOSES,),
    )  # fmt: skip
    if built is None:
        return None
    judged = called("eval", built["bundles"][0]["path"], "--data", images / "test")
    document = json.loads(scales.read_text())
    (output,) = document["judged"][document["used"]].values()
    layers: Document = {}
    if run.layers:
        drawn = called(
            "plot", "errors", *network, "--calibration", scales, "--data", images / "test",
            "-o", folder / "layers.svg",
        )  # fmt: skip
        found = (drawn or {})["layers"]
        layers = {each["name"]: each["cosine"] for each in found if each["op"] != "input"}
    return IntegerResult((judged or {})["confusion"], output["cosine"], layers)


def forms(run: ExperimentRun, at: Workshop, weights: Path) -> Mapping[str, FormResult]:
    """Return what the files of LiteRT do, and their bytes."""
    size = {"size": str(at.form.size)} if at.form.size else {}
    given = (f"{n}={value}" for n, value in {**size, **run.row.settings}.items())
    images, network = at.images(run.data), ",".join([run.row.spec, *given])
    words: list[str | Path] = [
        sys.executable, ROOT / "tools" / "case_study.py", "--data", images / "test",
        "--calibrate-with", at.calibration(run.data), "--network", f"it={network}",
        "--weights", f"it={weights}", "--format", "json",
    ]  # fmt: skip
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    each = json.loads(done.stdout)["networks"][0]["forms"]
    return {name: FormResult(form["correct"], form["bytes"]) for name, form in each.items()}


def counts(report: Document) -> ImageCounts:
    """Return what a training says of its images."""
    seen = {key: report["data"][key] for key in ("classes", "images", "digests")}
    found: ImageCounts = json_records.decode(ImageCounts, seen)
    return found


def experiment(
    of: Experiment, name: str, at: Workshop, known: ExperimentResults | None
) -> ExperimentResults:
    """Run an experiment's trainings, one after the other; return all figures.

    Raises:
        SystemExit: What is known is of other images, versions or threads than what is trained.
    """
    found: dict[str, RunResult] = {}
    before = known or ExperimentResults(name, {}, at.threads, {}, {})
    seen, made = dict(before.data), before.made_with
    if (before.form, before.threads) != (name, at.threads):
        sys.exit(f"what is known is of the form {before.form}, on {before.threads} threads")
    for run in runs(of, at.form):
        if run.key in before.runs:
            found[run.key] = before.runs[run.key]
            continue
        found[run.key] = measured(run, at)
        report = json.loads((at.folder / run.key / "training" / "report.json").read_text())
        now = counts(report)
        if (
            seen.setdefault(run.data, now) != now
            or (made or report["made_with"]) != report["made_with"]
        ):
            sys.exit("what is known is of other images or versions: run all anew, without --add")
        made = report["made_with"]
    return ExperimentResults(name, made, at.threads, seen, found)


def begin(folder: Path, form: ExperimentForm, resume: bool) -> None:
    """Make the folder of a run, or go on with it.

    Raises:
        SystemExit: It holds another one, or none.
    """
    said, wanted = folder / "form.json", text(form)
    if resume != said.exists():
        sys.exit(f"{folder}: " + ("nothing to resume" if resume else "begun: say --resume"))
    if resume and said.read_text() != wanted:
        sys.exit(f"{folder}: begun with other images, epochs or seeds: delete it, or restore them")
    folder.mkdir(parents=True, exist_ok=True)
    said.write_text(wanted)


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--build", type=Path, default=BUILD)
    asked = parser.parse_args()
    path = Path(asked.name)
    path = path if path.suffix else DECLARATIONS / f"{asked.name}.yaml"
    if not path.is_file():
        names = sorted(each.stem for each in DECLARATIONS.glob("*.yaml"))
        sys.exit(f"there is no experiment {asked.name}: there are {', '.join(names)}")
    of, name = declaration(path), "full" if asked.full else "short"
    form, folder = of.full if asked.full else of.short, asked.build / f"{path.stem}-{name}"
    begin(folder, form, asked.resume)
    at = Workshop(folder, form, asked.threads)
    for each in dict.fromkeys(table.data for table in tables(of, form)):
        gather(each, of.data[each], asked.data, at)
    figures = asked.output / f"{path.stem}.json"
    found = experiment(of, name, at, results(figures) if asked.add else None)
    asked.output.mkdir(parents=True, exist_ok=True)
    figures.write_text(text(found))
    for file, words in make_experiments.page(of, found, asked.output / path.stem).items():
        file.write_text(words)
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
