"""The commands and the recipe of docs/training.md work."""

import re
import shlex
import shutil

import pytest
from training_nets import SPEC, draw
from typer.testing import CliRunner

from tcc.compiler.train import recipe


def find_blocks(root, language):
    text = (root / "docs/training.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_commands_of_the_page_run(root, home, pictures):
    from tcc.compiler.cli import app

    labels = "drop: 0.2, labels: {type: names, default: [blue, red]}"
    spec = SPEC.replace("drop: 0.2", labels).replace("units: 2", "units: len(labels)")
    (home / "net.yaml").write_text(spec.replace("labels: [blue, red]}}", "labels: labels}}"))
    (home / "sweep.yaml").write_text(find_blocks(root, "yaml")[0])
    shutil.copytree(pictures, home / "images")
    for number in range(90):  # three classes, in three splits
        split = ("train", "train", "train", "val", "test")[number // 3 % 5]
        label = ("cyst", "healthy", "tumor")[number % 3]
        draw(home / f"others/{split}/{label}/{number}.png", "red", 1000 + number)
    (transfer,) = find_blocks(root, "python")
    lines = [line for block in find_blocks(root, "sh") for line in block.splitlines()]
    assert len(lines) >= 5
    for line in lines:
        if "start.safetensors" in line:
            exec(transfer, {})  # noqa: S102 - the page's own text
        outcome = CliRunner().invoke(app, shlex.split(line)[1:])
        assert outcome.exit_code == 0, f"$ {line}\n{outcome.stderr}"
    assert (home / "runs/long/report.json").exists()
    assert (home / "runs/others/report.json").exists()
    assert (home / "runs/sweep/sweep.svg").read_text().startswith("<svg ")


def test_recipe_of_the_page_is_valid(root):
    _, text = find_blocks(root, "yaml")
    parsed = recipe.parse_recipe(text, "training.md")
    assert (parsed.epochs, parsed.augment.warp.degrees) == (100, 15)


@pytest.mark.parametrize(
    "key", ["loss.gamma", "augment.warp.degrees", "learning_rate.warmup_epochs"]
)
def test_page_lists_every_recipe_key(root, key):
    assert f"| `{key}` |" in (root / "docs/training.md").read_text()
