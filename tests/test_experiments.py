"""The experiments of the papers: their declarations, and pages made from figures."""

import importlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tcc.compiler.reference import confidence_intervals
from tcc.compiler.zoo import shipped

SPEC = """\
tcc: 1
name: bright
params: {labels: {type: names, default: []}, classes: 2, size: 16}
input:
  image:
    shape: [3, size, size]
    preprocess: {resize: {size: [size, size], mode: stretch}}
graph: [conv: {filters: 4, kernel: 1}, global_avg_pool, flatten, linear: {units: classes}]
output:
  logits: {activation: softmax, labels: "labels if classes == len(labels) else []"}
"""
DECLARED = """\
title: Drawn
about: Drawn images.
recipe: fastnet-paper
data:
  tiles: {folder: tiles, about: Dark and bright., classes: {dark: [a], light: [b, c]}}
short: {seeds: [0], epochs: 30, size: 8, images: {train: 6, val: 3}, recipe: {learning_rate.peak: "0.1"}, rows: {bright: {initial_weights: he, epochs: "20"}}}
full: {seeds: [0, 1]}
tables:
  - title: One
    data: tiles
    positive: light
    columns: [parameters, right, accuracy, interval, recall, int8 right, cosine]
    confusion: [bright]
    layers: [bright]
    printed: [accuracy]
    rows: [{name: bright, spec: bright.yaml, recipe: {loss: "{kind: focal}"}, printed: ["0.9"]}]
"""


@pytest.fixture
def tools(root, monkeypatch):
    """The modules of the tool, from its folder."""
    monkeypatch.syspath_prepend(root / "tools")
    return importlib.import_module("make_experiments"), importlib.import_module(
        "experiment_records"
    )


def test_declarations_are_complete(tools):
    pages, records = tools
    declaration_files = sorted(records.DECLARATIONS.glob("*.yaml"))
    assert [path.stem for path in declaration_files] == [
        "case-study",
        "ddsnet",
        "fastnet",
        "ultrasound-cervical",
    ]
    for path in declaration_files:
        of = records.read_declaration(path)
        assert of.full.seeds == (0, 1, 2)
        assert (of.full.epochs, of.full.size, of.full.images, of.full.without) == (0, 0, {}, ())
        assert set(of.short.without) < {table.title for table in of.tables}
        assert set(of.short.rows) <= {row.name for table in of.tables for row in table.rows}
        for table in of.tables:
            assert table.data in of.data
            assert set(table.columns) <= set(pages.COLUMNS)
            assert {*table.confusion, *table.layers} <= {row.name for row in table.rows}
            assert (table.recipe or of.recipe) in shipped.list_recipes()
            for row in table.rows:
                assert row.spec in shipped.list_specs()
                assert len(row.printed) == len(table.printed)


def render_page(tools, tmp_path, runs):
    """Return the page for the confusion matrix of each seed."""
    pages, records = tools
    path = tmp_path / "drawn.yaml"
    path.write_text(DECLARED)
    of = records.read_declaration(path)
    form = "short" if len(runs) == 1 else "full"
    (table,) = records.list_tables(of, getattr(of, form))
    key = records.make_run_path(table.rows[0], of.recipe, "tiles")
    layers = {"conv": 0.97, "linear": 0.995}
    measured = {
        f"{key}/seed-{seed}": records.RunResult(
            18, 2, 0.9, 0.8, counts, records.IntegerResult(counts, 0.99, layers), {}
        )
        for seed, counts in enumerate(runs)
    }
    image_counts = records.ImageCounts(("dark", "light"), {"train": (6, 6)}, {"test": "0" * 64})
    experiment_results = records.ExperimentResults(
        form, {"tcc": "1"}, 1, {"tiles": image_counts}, measured
    )
    page_files = pages.make_pages(of, experiment_results, tmp_path / "drawn")
    return {path.name: text for path, text in page_files.items()}


def test_a_page_shows_accuracies_with_exact_intervals(tools, tmp_path):
    files = render_page(tools, tmp_path, [((9, 1), (2, 8))])
    pictures = ["drawn-confusion.svg", "drawn-cosines.svg", "drawn-layers-tiles.svg"]
    assert sorted(files) == [*pictures, "drawn.md"]
    assert "of bright `initial_weights: he` and `epochs: 20`" in files["drawn.md"]
    assert all(label in files["drawn-layers-tiles.svg"] for label in (">conv<", ">0.970000<"))
    bounds = confidence_intervals.compute_share_interval(17, 20)
    row_text = (
        f"0.8500 | {bounds.low:.4f} to {bounds.high:.4f} | 0.8000 | 17 of 20 | 0.990000 | 0.9 |"
    )
    assert f"| bright | 18 | 17 of 20 | {row_text}" in files["drawn.md"]
    assert "One seed was trained" in files["drawn.md"]
    assert "Not converged" not in files["drawn.md"]
    assert ">9<" in files["drawn-confusion.svg"]


def test_several_seeds_are_shown_with_their_spread(tools, tmp_path):
    text = render_page(tools, tmp_path, [((9, 1), (2, 8)), ((10, 0), (1, 9))])["drawn.md"]
    bounds = confidence_intervals.compute_share_interval(17, 20)
    assert "| bright | 18 | 17, 19 of 20 | 0.9000 (0.8500 to 0.9500) |" in text
    assert f"| {bounds.low:.4f} to {bounds.high:.4f} |" in text
    assert "means over the seeds" in text


@pytest.mark.parametrize("counts", [((10, 0), (10, 0)), ((6, 4), (5, 5))])
def test_an_unconverged_network_is_marked(tools, tmp_path, counts):
    text = render_page(tools, tmp_path, [counts])["drawn.md"]
    assert "| bright \u2020 |" in text
    assert "**Not converged**" in text
    assert "In the last epoch, bright classified 0.9000 of its training images correctly." in text


def draw_images(folder):
    """Draw dark and bright images, each pair of one patient."""
    rng = np.random.default_rng(0)
    lines = ["file,split,label,group"]
    for split in ("train", "val", "test"):
        for name, low in (("a", 0), ("b", 150), ("c", 190)):
            (folder / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(low, low + 60, (12, 10, 3), np.uint8)
                file = f"{split}/{name}/{number}.png"
                Image.fromarray(pixels).save(folder / file)
                lines.append(f"{file},{split},{name},{split}-{name}-{number // 2}")
    (folder / "index.csv").write_text("\n".join(lines))


FOLDER_OPTIONS = ("--data", "data", "--build", "build", "-o", "pages")


@pytest.fixture
def experiment(tools, root, tmp_path, monkeypatch, capsys):
    """Run an experiment on synthetic images in this process, which has imported PyTorch."""
    tool = importlib.import_module("paper_experiments")
    (tmp_path / "bright.yaml").write_text(SPEC)
    (tmp_path / "drawn.yaml").write_text(DECLARED)
    draw_images(tmp_path / "data" / "tiles")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["paper_experiments.py", "drawn.yaml", *arguments, *FOLDER_OPTIONS]
        )
        capsys.readouterr()
        try:
            return tool.main(), capsys.readouterr().err
        except SystemExit as end:
            return 1, f"{end.code}\n"

    return run


@pytest.mark.slow
def test_an_experiment_runs_end_to_end_and_resumes(experiment, root, tmp_path):
    """Finished parts are reused and give the same bytes."""
    pytest.importorskip("torch", reason="needs the extra `train`")
    pytest.importorskip("onnxruntime", reason="needs the extra `ort`")
    run = experiment

    def read_pages():
        return {path.name: path.read_bytes() for path in (tmp_path / "pages").iterdir()}

    nothing = (1, "build/drawn-short: nothing to resume; run without --resume\n")
    command = [
        sys.executable,
        root / "tools/paper_experiments.py",
        "drawn.yaml",
        "--resume",
        *FOLDER_OPTIONS,
    ]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stderr) == nothing
    assert run("--resume") == nothing
    code, messages = run()
    assert code == 0, messages
    assert "E1208" not in messages
    table = (tmp_path / "build/drawn-short/data/tiles/index.csv").read_text().splitlines()
    assert table[:2] == ["file,label,group,split", "train/dark/a-0.png,dark,train-a-0,train"]
    assert len(table) == 1 + 12 + 6 + 24
    first_pages = read_pages()
    (figures,) = json.loads(first_pages["drawn.json"])["runs"].values()
    assert sum(map(sum, figures["confusion"])) == 24
    assert figures["epochs"] == 20
    layers = figures["integers"]["layers"]
    assert "image" not in layers
    assert len(layers) > 1
    assert all(0 < cosine <= 1 for cosine in layers.values())
    assert "| bright | " in first_pages["drawn.md"].decode()
    assert run() == (
        1,
        "build/drawn-short: a run is unfinished here: add --resume, or delete the folder\n",
    )
    assert run("--resume") == (0, "")
    assert read_pages() == first_pages
    shutil.rmtree(tmp_path / "build")
    assert run("--add") == (0, "")
    assert read_pages() == first_pages
    added_row = "{name: again, spec: bright.yaml, recipe: {epochs: '3'}}"
    (tmp_path / "drawn.yaml").write_text(DECLARED[:-2] + f", {added_row}]\n")
    code, messages = run("--resume", "--add")
    assert code == 0, messages
    first_run, new = json.loads(read_pages()["drawn.json"])["runs"].values()
    assert (first_run, new["epochs"]) == (figures, 3)
    assert len(list((tmp_path / "build").rglob("training"))) == 1  # not trained again
    rows = read_pages()["drawn.md"].decode()
    assert "| bright | " in rows
    assert "| again | " in rows
