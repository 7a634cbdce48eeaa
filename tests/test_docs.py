"""README.md and docs/ work: commands run, links have targets, and the site builds."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import page_commands
import pytest
from page_commands import run
from typer.testing import CliRunner

from tcc.compiler.cli import app

ROOT = Path(__file__).resolve().parents[1]
README, COMMANDS, PYTHON, FROM_PYTORCH, TUTORIAL = (
    ROOT / name
    for name in (
        "README.md", "docs/commands.md", "docs/python.md", "docs/from-pytorch.md",
        "docs/tutorial.md",
    )
)  # fmt: skip
EXAMPLES = [*sorted((ROOT / "docs/examples").glob("[!R]*.md")), ROOT / "docs/agreement.md"]
PAGES = [
    README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "spec").glob("*.md")),
]  # fmt: skip
MAKE = {"make demo", "make test"}
"""Commands that create an environment or run these tests."""


def find_code_blocks(page, language):
    return page_commands.find_blocks(page.read_text(), language)


def list_commands(page):
    return page_commands.list_commands(page.read_text())


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of a checkout and a checkpoint of the user."""
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.lower.torch import create_module

    for name in ("spec", "zoo", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "tcc.toml", tmp_path)
    network = create_module(load(ROOT / "spec/ddsnet.yaml").graph)
    torch.save(network.state_dict(), tmp_path / "checkpoint.pth")
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory):
    """An environment in which `tcc` runs with this Python, installed or not."""
    return page_commands.create_environment(tmp_path_factory.mktemp("bin"))


@pytest.mark.slow
def test_readme_and_command_list_run(folder, monkeypatch):
    """Runs in this process: starting fifty processes would take as long as the commands."""
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    monkeypatch.chdir(folder)
    for line in list_commands(README) + list_commands(COMMANDS):
        emulated = line.startswith(("tcc run build/ddsnet-arm", "tcc bench build/ddsnet-arm"))
        # `make test` reports if it cannot install qemu
        if line in MAKE or (emulated and not shutil.which("qemu-arm")):
            continue
        outcome = CliRunner().invoke(app, shlex.split(line)[1:])
        assert outcome.exit_code == 0, f"$ {line}\n{outcome.stdout}{outcome.stderr}"
    assert sorted(p.name for p in (folder / "build").iterdir()) == [
        "confusion.png",
        "ddsnet-arm-a7-fp32",
        "ddsnet-blood-arm-a7-int8",
        "ddsnet-blood-ax620.calibration.cosine.svg",
        "ddsnet-blood-ax620.calibration.images.tar",
        "ddsnet-blood-ax620.calibration.json",
        "ddsnet-blood-host-int8",
        "ddsnet-host-fp32",
        "ddsnet-onnxruntime-fp32",
        "ddsnet-onnxruntime-int8",
        "ddsnet-onnxruntime.calibration.json",
        "ddsnet-tflite-fp16",
        "mask.geojson",
        "tsne.svg",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_examples_run(page, folder, environment):
    for module in ("tvm", "ai_edge_litert", "onnxsim"):
        pytest.importorskip(module, reason="needs the extra `all`")
    lines = list_commands(page)
    assert lines
    settings = {}
    for line in lines:
        name, equals, setting = line.partition("=")
        if equals and name.isidentifier():
            settings[name] = setting.strip('"')
        else:
            run(line, folder, environment | settings)


@pytest.mark.slow
def test_part_one_of_the_tutorial_leads_to_accurate_int8_models(tmp_path, environment):
    """Runs the complete part in an empty folder, with the files of its first commands."""
    for module in ("torch", "tvm", "ai_edge_litert"):
        pytest.importorskip(module, reason="needs the extra `all`")
    if not shutil.which("qemu-arm"):
        pytest.skip("needs qemu-arm")
    folder = tmp_path / "cells"
    folder.mkdir()
    part, _, _ = TUTORIAL.read_text().partition("\n## Part two")
    (drawing,), (project,) = (page_commands.find_blocks(part, name) for name in ("python", "toml"))
    (folder / "draw.py").write_text(drawing)
    lines = page_commands.list_commands(part)
    for line in lines:
        if line == "tcc eval":  # after the training, in the order of the page
            (folder / "tcc.toml").write_text(project)
        json_option = " --json > compared.json" if line.startswith("tcc eval cells.yaml ") else ""
        run(line + json_option, folder, environment)
    assert [line.split()[:2] for line in lines] == [
        ["python", "draw.py"], ["tcc", "init"], ["tcc", "check"], ["tcc", "train"],
        ["tcc", "eval"], ["tcc", "calibrate"], ["tcc", "build"], ["tcc", "eval"], ["tcc", "run"],
    ]  # fmt: skip
    networks = json.loads((folder / "compared.json").read_text())["networks"]
    assert [(network["target"], network["precision"]) for network in networks[1:]] == [
        ("onnxruntime", "int8"), ("tflite", "int8"), ("arm-a7", "int8"),
    ]  # fmt: skip
    assert {network["data"]["images"] for network in networks} == {96}
    floats = networks[0]["correct"]
    assert floats >= 72  # chance gives 48, give or take 5
    assert all(abs(network["correct"] - floats) <= 1 for network in networks)


@pytest.mark.parametrize(
    "page", [README, *(pytest.param(p, marks=pytest.mark.slow) for p in (PYTHON, FROM_PYTORCH))]
)
def test_python_examples_run(page, folder, monkeypatch):
    if page == PYTHON:
        pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    monkeypatch.chdir(folder)
    texts = find_code_blocks(page, "python")
    assert texts
    # Each in a separate namespace, all in one process that imports PyTorch once.
    program = "import sys\nfor text in sys.argv[1:]:\n    exec(text, {'__name__': '__main__'})\n"
    completed = subprocess.run(
        [sys.executable, "-c", program, *texts], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr


def test_shell_commands_are_extracted_from_pages():
    assert set(list_commands(README)) >= MAKE
    assert "tcc build spec/ddsnet.yaml --target arm-a7,onnxruntime" in list_commands(COMMANDS)
    for page in (README, COMMANDS):
        assert all(line.startswith("tcc ") for line in list_commands(page) if line not in MAKE)
    pages = ["import-onnx", "own-images", "own-network", "agreement"]
    assert [page.stem for page in EXAMPLES] == pages


@pytest.mark.parametrize(
    ("page", "spec"),
    [(README, "tiles"), (ROOT / "docs/examples/own-network.md", "own-network")],
    ids=["README", "own-network"],
)
def test_specs_in_pages_equal_the_files(page, spec):
    (spec_text,) = find_code_blocks(page, "yaml")
    assert (ROOT / f"docs/examples/{spec}.yaml").read_text() == spec_text


def test_the_readme_shows_a_short_spec_and_its_figure(tmp_path, environment):
    (spec_text,) = find_code_blocks(README, "yaml")
    assert 12 <= len(spec_text.splitlines()) <= 20
    spec, picture = "docs/examples/tiles.yaml", tmp_path / "tiles.svg"
    run(f"tcc show {spec} --format svg -o {picture}", ROOT, environment)
    assert picture.read_text() == (ROOT / "docs/pictures/tiles.svg").read_text()
    text = README.read_text()
    assert text.index("pip install") < text.index("```sh") < text.index("```yaml")
    assert text.index("```yaml") < text.index("docs/pictures/tiles.svg")
    assert text[: text.index("```sh")].count("\n") < 20


def find_links(page):
    return [to for to in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in to]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page):
    paths = [(page.parent / link.partition("#")[0]).resolve() for link in find_links(page)]
    assert [str(path) for path in paths if not path.exists()] == []
    assert all(path.is_relative_to(ROOT) for path in paths)


def test_every_page_is_linked_from_the_readme():
    reached, new = set(), {README}
    while new:
        reached |= new
        new = {
            (page.parent / link.partition("#")[0]).resolve()
            for page in new for link in find_links(page) if link.partition("#")[0].endswith(".md")
        } - reached  # fmt: skip
    assert [str(page.relative_to(ROOT)) for page in PAGES if page.resolve() not in reached] == []


def test_every_target_and_extra_is_named():
    from tcc.backends import BACKENDS

    text = README.read_text()
    for backend in BACKENDS:
        for target in backend.targets:  # others: see `tcc targets`
            assert f"`{target.name}`" in text or not (target.runs or target.calibrates)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all(f"`{extra}`" in text for extra in project["optional-dependencies"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All pages as built by `make docs`."""
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason="needs the extra `docs`")
    built = tmp_path_factory.mktemp("site")
    completed = subprocess.run(
        [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q",
         "-d", built / "work", "-c", "docs", ".", built / "html"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return built / "html"


@pytest.mark.slow
def test_the_site_contains_every_page_and_no_external_link(site):
    for page in PAGES:
        assert (site / page.relative_to(ROOT).with_suffix(".html")).exists(), page
    dead = []
    for page in site.rglob("*.html"):
        text = re.sub(r"<(pre|script)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)
        links = (link for link in re.findall(r'(?:href|src)="([^"#?]+)', text) if "://" not in link)
        gone = [link for link in links if not (page.parent / link).exists()]
        dead += [f"{page.relative_to(site)}: {link}" for link in gone]
    assert dead == []


@pytest.mark.slow
def test_the_site_starts_with_the_spec_and_works_offline(site):
    text = (site / "index.html").read_text()
    assert "tiles.svg" in text
    assert "ds_conv" in text
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)\b[^>]*(?:src|href)="([^"]+)', page.read_text())
        assert [url for url in loaded if "://" in url] == []


def test_code_in_contributing_works(tmp_path):
    """The code of an op, a pass, a method and a target, run unchanged."""
    import numpy as np

    from tcc.compiler.data.weights import make_placeholders
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.ir.backend import Builder, Runner
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.ops import activation
    from tcc.compiler.passes import run as through

    op, rule, method, target = find_code_blocks(ROOT / "CONTRIBUTING.md", "python")
    namespaces = [dict(vars(activation)), {}, {}, {}]
    for code, names in zip((op, rule, method, target), namespaces, strict=True):
        exec(code, names)  # noqa: S102 - the page's own text
    mish, scales, aciq, dot = namespaces
    x = np.array([-1e9, -1.0, 0.0, 1.0, 1e9])
    expected = [0, -0.30340146, 0, 0.86509839, 1e9]
    assert mish["Mish"]().evaluate(x) == pytest.approx(expected, abs=1e-8)
    spec = tmp_path / "scaled.yaml"
    spec.write_text(
        (ROOT / "docs/examples/tiles.yaml")
        .read_text()
        .replace("  - flatten\n", "  - scale\n  - flatten\n")
    )
    graph = load(spec).graph
    model = Model(graph, make_placeholders(graph))
    rewritten_graph = through(model, [scales["drop_unit_scale"]]).graph
    assert {n.name for n in graph.nodes} - {n.name for n in rewritten_graph.nodes} == {"scale"}
    assert aciq["ACIQ"].name == "aciq"
    backend = dot["Dot"]()
    assert isinstance(backend, Builder)
    assert not isinstance(backend, Runner)
    (dot_target,) = backend.targets
    text = backend.emit(dot_target, model, FP32).files["graph.dot"].decode()
    assert text.startswith('digraph {\n  "image" -> "conv";\n')


@pytest.mark.slow
def test_the_signature_example_runs(tmp_path, environment):
    """Keys, a signed bundle, a trusted key, a valid bundle, and then an invalid one."""
    pytest.importorskip("cryptography", reason="needs the extra `sign`")
    signing, signed_program = find_code_blocks(ROOT / "docs/security.md", "sh")
    user_folders = {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    for line in (signed_program + signing).splitlines():
        run(line, tmp_path, environment | user_folders)
    (tmp_path / "build/ddsnet-onnxruntime-fp32/model-card.md").write_text("better")
    run(f"! {signing.splitlines()[-1]}", tmp_path, environment | user_folders)
