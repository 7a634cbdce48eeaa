"""A tiny dataset that a network can learn, and a fixture that runs `tcc train`."""

import pytest
from training_nets import RECIPE, SPEC, draw
from typer.testing import CliRunner


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A dataset with train, val and test splits."""
    folder = tmp_path_factory.mktemp("pictures")
    seed = 0
    for split, count in (("train", 21), ("val", 6), ("test", 5)):
        for label in ("blue", "red"):
            for number in range(count):
                draw(folder / split / label / f"{number}.png", label, seed := seed + 1)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder with a spec and a recipe."""
    (tmp_path / "tiny.yaml").write_text(SPEC)
    (tmp_path / "own.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train(home, pictures):
    """Run `tcc train` in this process."""
    from tcc.compiler.cli import app

    def run(*arguments, spec="tiny.yaml", data=None, recipe="own.yaml"):
        options = ("train", spec, "--data", data or pictures, "--recipe", recipe, "--threads", 1)
        return CliRunner().invoke(app, list(map(str, (*options, *arguments))))

    return run
