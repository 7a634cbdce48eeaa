"""Part two of docs/tutorial.md: its commands run on photographs that this file draws."""

import csv
import re
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from page_commands import create_environment, find_blocks, list_commands, run, write_program
from PIL import Image
from shared_folders import fill_once

from tcc.backends.web.backend import RUNTIME_PACKAGE
from tcc.compiler.support.external_tools import MissingTool
from tcc.compiler.train import image_split, recipe

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/tutorial.md").read_text()
PART = PAGE[PAGE.index("## Part two") : PAGE.index("## Warnings")]
SECTIONS = dict(re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", PART, re.DOTALL | re.MULTILINE))
TRAIN_AND_BUILD = (
    "A network and a recipe", "Train and evaluate", "Transfer learning", "Calibrate and build",
)  # fmt: skip
"""The sections that all later ones require."""
ZIG_TARGETS = {
    "arm-linux-gnueabihf-gcc": "-target arm-linux-musleabihf -mcpu=cortex_a7",
    "aarch64-linux-gnu-gcc": "-target aarch64-linux-musl -mcpu=cortex_a53",
}
"""The target of zig if the cross-compiler of this name is not installed."""
CELLS = {"WBC": ((90, 50, 140), 17), "RBC": ((200, 110, 110), 11), "Platelets": ((120, 70, 150), 4)}
"""Color and radius of each class, in pixels."""


def draw_photos(folder, patients=24):
    """Draw a cell of each class per patient in several sizes, and write the table."""
    random = np.random.default_rng(0)
    folder.mkdir()
    rows = [("file", "label", "group", "split")]
    for patient in range(patients):
        split = ("train", "train", "val", "test")[patient % 4]
        for label, (color, radius) in CELLS.items():
            height, width = random.integers(60, 90, 2)
            y, x = np.mgrid[:height, :width]
            center_y, center_x = random.uniform(25, 35, 2)
            inside = np.hypot(y - center_y, x - center_x) < radius * random.uniform(0.85, 1.15)
            pixels = np.where(inside[..., None], color, (225, 215, 220))
            pixels = pixels + random.normal(0, 6, pixels.shape)
            file = f"{label.lower()}-{patient}.jpg"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / file)
            rows.append((file, label, f"patient-{patient}", split))
    with (folder / "index.csv").open("w", newline="") as table:
        csv.writer(table).writerows(rows)


def run_section(title, folder, environment):
    return [run(line, folder, environment) for line in list_commands(SECTIONS[title])]


def train_and_build(folder):
    """Run the first sections with the files of a new user."""
    (folder / "bin").mkdir()
    environment = create_environment(folder / "bin")
    project_folder = folder / "blood"
    project_folder.mkdir()
    draw_photos(project_folder / "photos")
    (project_folder / "augment.yaml").write_text(find_blocks(PART, "yaml")[0])
    (project_folder / "classify.c").write_text(find_blocks(PART, "c")[0])
    for title in TRAIN_AND_BUILD:
        for line in list_commands(SECTIONS[title]):
            if line == "tcc eval":  # after the training, in the order of the page
                (project_folder / "tcc.toml").write_text(find_blocks(PART, "toml")[0])
            run(line, project_folder, environment)


@pytest.fixture
def project(tmp_path, tmp_path_factory):
    """A copy of the folder `blood` with a trained and built network, and an environment."""
    for module in ("torch", "tvm"):
        pytest.importorskip(module, reason="needs the extra `all`")
    if not shutil.which("qemu-arm"):
        pytest.skip("needs qemu-arm: apt-get install qemu-user")
    shared = fill_once(tmp_path_factory, "own-images", train_and_build)
    shutil.copytree(shared / "blood", tmp_path / "blood")
    (tmp_path / "bin").mkdir()
    return tmp_path / "blood", create_environment(tmp_path / "bin")


def test_the_table_and_the_recipe_are_accepted(tmp_path):
    draw_photos(tmp_path / "photos", 4)
    (table,) = find_blocks(PART, "csv")
    head, *lines = csv.reader(table.splitlines())
    table_lines = (tmp_path / "photos/index.csv").read_text().splitlines()
    assert table_lines[0].split(",") == head
    assert {line[1] for line in lines} == set(CELLS)
    options = image_split.SplitOptions(labels=tuple(CELLS))
    split = image_split.read_split(tmp_path / "photos", options)
    assert {name: len(dataset) for name, dataset in split.datasets.items()} == {
        "train": 6, "val": 3, "test": 3,
    }  # fmt: skip
    augment = recipe.parse_recipe(find_blocks(PART, "yaml")[0], "augment.yaml")
    assert (augment.epochs, augment.augment.warp.degrees) == (30, 20)


def test_every_tutorial_section_is_run_by_a_test():
    """Each section is named here, so that a new one needs a test."""
    assert [title for title, text in SECTIONS.items() if list_commands(text)] == [
        *TRAIN_AND_BUILD, "Verify and measure", "A program for a board", "A web page",
        "A package for an NPU",
    ]  # fmt: skip
    assert sum(map(len, map(list_commands, SECTIONS.values()))) == len(list_commands(PART))


@pytest.mark.slow
def test_the_int8_models_are_as_accurate_as_the_fp32_model(project):
    verified, compared, _, cycles = run_section("Verify and measure", *project)
    assert " 0 of 3 " in verified
    rows = [line for line in compared.splitlines() if re.search(r" (fp32|int8) ", line)]
    accuracies = [re.search(r"(\d+\.\d+)%", row).group(1) for row in rows]
    assert len(accuracies) == 3
    assert float(accuracies[0]) >= 80  # chance gives 33
    assert len(set(accuracies)) == 1
    assert "cycles" in cycles


@pytest.mark.slow
def test_the_board_program_prints_the_output_of_tcc_run(project):
    if not shutil.which("qemu-aarch64"):
        pytest.skip("needs qemu-aarch64: apt-get install qemu-user")
    folder, environment = project
    for compiler, target in ZIG_TARGETS.items():
        if not shutil.which(compiler):
            write_program(folder.parent / "bin", compiler, f"-m ziglang cc {target}")
    *_, on_32_bits, on_64_bits, expected = run_section("A program for a board", folder, environment)
    printed = {line.split()[0]: line.split()[1] for line in on_32_bits.splitlines()}
    assert printed == dict(line.split() for line in expected.splitlines()[1:])
    assert on_64_bits == on_32_bits
    predicted = [line.split()[0] for line in on_32_bits.splitlines() if line.endswith("<-")]
    assert predicted == [max(printed, key=lambda label: float(printed[label]))]


@pytest.mark.slow
def test_the_web_page_is_built_verified_and_served(project):
    if not shutil.which("node"):
        pytest.skip("needs Node.js: apt-get install nodejs")
    try:
        RUNTIME_PACKAGE.load_files()
    except MissingTool as error:
        pytest.skip(f"{error} {error.reason}")
    folder, environment = project
    *lines, serve = list_commands(SECTIONS["A web page"])
    for line in lines:
        run(line, folder, environment)
    with subprocess.Popen(
        [*serve.split(), "--port", "0"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        with urlopen(server.stdout.readline().strip(), timeout=60) as page:
            assert page.status == 200
        server.send_signal(signal.SIGINT)
    assert server.returncode == 130


@pytest.mark.slow
def test_the_npu_package_is_written(project):
    checked, _, built = run_section("A package for an NPU", *project)
    assert "ax620 at int8: can run every layer" in checked
    assert "build/blood-ax620-int8" in built
    assert (project[0] / "build/blood-ax620-int8/model/build.sh").exists()
