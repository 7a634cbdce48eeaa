"""The tool that trains the zoo networks: what its model cards report about images."""

import runpy
from pathlib import Path

import pytest
from training_nets import draw

from tcc.compiler.train import image_split

describe_groups = runpy.run_path(str(Path(__file__).parents[1] / "tools/train_zoo.py"))[
    "describe_groups"
]


@pytest.fixture
def images(tmp_path):
    """A dataset of three splits and its digests as a training reports them."""
    for number, split in enumerate(("train", "val", "test")):
        for index, label in enumerate(("blue", "red")):
            draw(tmp_path / split / label / "0.png", label, 2 * number + index)
    digests = {
        split: data.digest for split, data in image_split.read_split(tmp_path).datasets.items()
    }
    return tmp_path, {"data": {"digests": digests}}


def test_a_model_card_lists_groups_only_if_known(images):
    folder, report = images
    assert describe_groups(folder, report).startswith("No groups, such as patients, are named")
    files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    lines = [f"{file},{file.partition('/')[0]}" for file in files]
    (folder / "index.csv").write_text("\n".join(["file,group", *lines]))
    sentence = describe_groups(folder, report)
    assert sentence == "The images are of 3 groups; no group is in two splits."


def test_a_model_card_describes_the_training_images(images):
    folder, report = images
    draw(folder / "val" / "red" / "0.png", "red", 99)
    with pytest.raises(SystemExit, match="the images of `val` differ from those of the training"):
        describe_groups(folder, report)
