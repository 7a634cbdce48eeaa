"""Paths that a locale cannot encode: every command accepts them."""

import os

import pytest

from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load

LOCALES = {
    "C": ({"LC_ALL": "C"}, "ünï ćö"),
    "C in ASCII": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ünï ćö"),
    "no text": ({}, os.fsdecode(b"\xff\xfe lat")),
}


@pytest.fixture
def path_folder(request, home, images):
    """A folder with such a name. It has a spec, weights and images, and is the scratch folder too."""
    spec_folder = home / request.param
    spec_folder.mkdir()
    (spec_folder / "tiny.yaml").write_bytes((home / "tiny.yaml").read_bytes())
    images.rename(spec_folder / "set")
    graph = load(home / "tiny.yaml").graph
    weights.write(spec_folder / f"{request.param}.safetensors", weights.initialize_random(graph))
    return spec_folder


@pytest.mark.parametrize(
    ("env", "path_folder"),
    [
        # The name that is not text is the hardest of the three.
        pytest.param(
            *locale, id=name, marks=getattr(pytest.mark, "slow" if name == "no text" else "nightly")
        )
        for name, locale in LOCALES.items()
    ],
    indirect=["path_folder"],
)
def test_each_command_accepts_such_paths(process, path_folder, env):
    weights_path = path_folder / f"{path_folder.name}.safetensors"
    bundle = path_folder / "out/tiny-onnxruntime-fp32"
    commands = [
        ("check", path_folder / "tiny.yaml"),
        ("show", path_folder / "tiny.yaml", "--format", "onnx", "-o", path_folder / "x.onnx"),
        ("build", path_folder / "tiny.yaml", "--target", "ort", "--weights", weights_path, "--out", path_folder / "out"),
        ("verify", bundle, "--json"),
        ("run", bundle, path_folder / "set", "--json"),
        ("eval", bundle, "--data", path_folder / "set"),
        ("show", bundle),
        ("import-weights", path_folder / "tiny.yaml", weights_path, "-o", path_folder / "w.safetensors"),
    ]  # fmt: skip
    for command in commands:
        outcome = process(*command, env={**env, "TMPDIR": str(path_folder)})
        assert outcome.code == 0, (command, outcome.err)
    leftover_names = [path.name for path in path_folder.iterdir() if path.name.startswith("tcc-")]
    assert leftover_names == []
