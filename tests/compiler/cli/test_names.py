"""Paths that a locale cannot spell: every command works on them."""

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
def place(request, home, images):
    """A folder of such a name with a spec, weights and images, which is the one for scratch too."""
    folder = home / request.param
    folder.mkdir()
    (folder / "tiny.yaml").write_bytes((home / "tiny.yaml").read_bytes())
    images.rename(folder / "set")
    graph = load(home / "tiny.yaml").graph
    weights.write(folder / f"{request.param}.safetensors", weights.initialize_random(graph))
    return folder


@pytest.mark.parametrize(
    ("env", "place"),
    [
        # What is no text is the hardest of the three.
        pytest.param(
            *locale, id=name, marks=getattr(pytest.mark, "slow" if name == "no text" else "nightly")
        )
        for name, locale in LOCALES.items()
    ],
    indirect=["place"],
)
def test_each_command_takes_them(process, place, env):
    weights_path = place / f"{place.name}.safetensors"
    bundle = place / "out/tiny-onnxruntime-fp32"
    commands = [
        ("check", place / "tiny.yaml"),
        ("show", place / "tiny.yaml", "--format", "onnx", "-o", place / "x.onnx"),
        ("build", place / "tiny.yaml", "--target", "ort", "--weights", weights_path, "--out", place / "out"),
        ("verify", bundle, "--json"),
        ("run", bundle, place / "set", "--json"),
        ("eval", bundle, "--data", place / "set"),
        ("show", bundle),
        ("import-weights", place / "tiny.yaml", weights_path, "-o", place / "w.safetensors"),
    ]  # fmt: skip
    for command in commands:
        outcome = process(*command, env={**env, "TMPDIR": str(place)})
        assert outcome.code == 0, (command, outcome.err)
    leftover_names = [path.name for path in place.iterdir() if path.name.startswith("tcc-")]
    assert leftover_names == []
