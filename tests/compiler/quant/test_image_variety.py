"""Sets of images that say little, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tcc.compiler.data.dataset import read_dataset, remove_repeats
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.ops import Flatten, GlobalAvgPool
from tcc.compiler.quant.image_variety import collect_sizes, measure_variety
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.nets import NetBuilder


def model(labels=("a", "b", "c")) -> Model:
    add = NetBuilder(3, 8, 8)
    add.inputs = (replace(add.inputs[0], preprocess=Preprocess()),)
    add("gap", GlobalAvgPool())
    add("end", Flatten())
    return Model(add.build(Output("y", "end", "softmax", labels=labels)), {})


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)


def folder(tmp_path, images, label="b"):
    for name, image in images.items():
        path = tmp_path / "set" / label / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return read_dataset(tmp_path / "set")


def test_a_good_set_has_nothing_said_of_it(tmp_path):
    folder(tmp_path, {f"{i}.png": pixels(i) for i in range(3)})
    data = folder(tmp_path, {f"{i}.png": pixels(i) for i in range(3, 6)}, "c")
    assert not list(measure_variety(model(), data).collect_notices())


def test_pixels_not_files_tell_images_apart(tmp_path):
    data = folder(tmp_path, {"a.png": pixels(0), "b.bmp": pixels(0), "c.png": pixels(1)})
    found = measure_variety(model(), data)
    assert (found.images, found.distinct_count) == (3, 2)
    assert "1 of 3 images repeat the pixels of others" in " ".join(found.collect_notices())
    found.require(2, "set")
    with pytest.raises(UserError) as caught:
        found.require(3, "set")
    (said,) = caught.value.diagnostics
    assert said.code == "E0721"
    assert "2 images of 3 are different" in str(said)


def test_files_that_show_the_same_are_named(tmp_path):
    data = folder(tmp_path, {f"{i}.png": pixels(i) for i in range(5)})
    assert measure_variety(model(), data).repeats == ()
    # A copy of a file is no other content.
    data = folder(tmp_path, {"again.png": pixels(0), "once more.bmp": pixels(1)})
    found = measure_variety(model(), data)
    assert (found.images, found.distinct_count) == (7, 5)
    left = remove_repeats(data, found.repeats)
    assert len(left) == 5
    assert measure_variety(model(), left).distinct_count == 5
    assert {item.path.name for item in data.items if item.digest in found.repeats} <= {
        "1.png", "once more.bmp"
    }  # fmt: skip
    assert len(found.repeats) == 1


@pytest.mark.parametrize("tensor", [False, True])
def test_images_of_one_colour_are_counted(tensor, tmp_path):
    black = np.zeros((8, 8, 3), np.uint8)
    red = black + np.uint8([200, 0, 0])
    several = np.stack([black, red, pixels(0)])
    if tensor:
        np.savez(tmp_path / "set.npz", tensors=several.transpose(0, 3, 1, 2) / np.float32(255))
        data = read_dataset(tmp_path / "set.npz")
    else:
        np.savez(tmp_path / "set.npz", images=several)
        data = read_dataset(tmp_path / "set.npz")
    found = measure_variety(model(), data)
    assert found.plain_count == 2
    assert "2 of 3 images are of one colour" in " ".join(found.collect_notices())


def test_one_class_of_several_is_said(tmp_path):
    data = folder(tmp_path, {f"{i}.png": pixels(i) for i in range(3)})
    assert "all images are of `b`, one of 3 classes" in " ".join(
        measure_variety(model(), data).collect_notices()
    )
    assert measure_variety(model(labels=()), data).only_class is None
    assert (
        measure_variety(model(labels=("x", "y")), data).only_class is None
    )  # other names: nothing is known


SMALL, WIDE, LARGE = (4, 4), (8, 16), (40, 40)


@pytest.mark.parametrize(
    ("contract", "sides", "said"),
    [
        (PixelResize((8, 8)), [(8, 8), (10, 9)], ()),
        (PixelResize((8, 8)), [SMALL, (8, 8)], ("1 of 2 images (4 x 4) are enlarged 2.0 times",)),
        (PixelResize((8, 8)), [WIDE, WIDE], ("2 of 2 images (16 x 8) are of another shape",)),
        (PixelResize((8, 8)), [(8, 8), LARGE], ("images are of 8 x 8 to 40 x 40",)),
        (PixelResize((8, 8), "cover"), [WIDE], ()),
        (PixelResize((8, 8), "cover"), [(8, 36)], ("reads the centre alone, down to 22%",)),
        (None, [LARGE], ("of 1 of 1 images (40 x 40) the network reads the centre alone",)),
    ],
)
def test_sizes_far_from_the_network_are_told_with_their_cost(contract, sides, said, tmp_path):
    for number, size in enumerate(sides):
        image = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    add = NetBuilder(3, 8, 8)
    crop = (8, 8) if contract is None else None
    add.inputs = (replace(add.inputs[0], preprocess=Preprocess(resize=contract, crop=crop)),)
    add("gap", GlobalAvgPool())
    found = collect_sizes(read_dataset(tmp_path), add.inputs[0])
    told = list(found.collect_notices())
    assert len(told) == len(said)
    for one, part in zip(told, said, strict=True):
        assert part in one


def test_a_photograph_that_is_turned_is_measured_as_it_is_shown(tmp_path):
    image = Image.fromarray(np.zeros((8, 16, 3), np.uint8))
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    add = NetBuilder(3, 16, 8)
    add.inputs = (replace(add.inputs[0], preprocess=Preprocess(resize=PixelResize((16, 8)))),)
    assert collect_sizes(read_dataset(tmp_path), add.inputs[0]).original_sizes == ((16, 8),)
