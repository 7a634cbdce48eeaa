"""Warnings about datasets with little variety."""

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


def build_model(labels=("a", "b", "c")) -> Model:
    add = NetBuilder(3, 8, 8)
    add.inputs = (replace(add.inputs[0], preprocess=Preprocess()),)
    add("gap", GlobalAvgPool())
    add("end", Flatten())
    return Model(add.build(Output("y", "end", "softmax", labels=labels)), {})


def create_pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)


def write_folder(tmp_path, images, label="b"):
    for name, image in images.items():
        path = tmp_path / "set" / label / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return read_dataset(tmp_path / "set")


def test_a_varied_dataset_has_no_warning(tmp_path):
    write_folder(tmp_path, {f"{i}.png": create_pixels(i) for i in range(3)})
    data = write_folder(tmp_path, {f"{i}.png": create_pixels(i) for i in range(3, 6)}, "c")
    assert not list(measure_variety(build_model(), data).collect_notices())


def test_images_are_compared_by_pixels(tmp_path):
    data = write_folder(
        tmp_path, {"a.png": create_pixels(0), "b.bmp": create_pixels(0), "c.png": create_pixels(1)}
    )
    image_variety = measure_variety(build_model(), data)
    assert (image_variety.images, image_variety.distinct_count) == (3, 2)
    assert "1 of 3 images have the same pixels" in " ".join(image_variety.collect_notices())
    image_variety.require(2, "set")
    with pytest.raises(UserError) as caught:
        image_variety.require(3, "set")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E0721"
    assert "3 images, of which 2 different" in str(diagnostic)


def test_duplicate_images_are_reported(tmp_path):
    data = write_folder(tmp_path, {f"{i}.png": create_pixels(i) for i in range(5)})
    assert measure_variety(build_model(), data).repeats == ()
    # A copied file has the same content.
    data = write_folder(
        tmp_path, {"again.png": create_pixels(0), "once more.bmp": create_pixels(1)}
    )
    image_variety = measure_variety(build_model(), data)
    assert (image_variety.images, image_variety.distinct_count) == (7, 5)
    distinct_images = remove_repeats(data, image_variety.repeats)
    assert len(distinct_images) == 5
    assert measure_variety(build_model(), distinct_images).distinct_count == 5
    assert {item.path.name for item in data.items if item.digest in image_variety.repeats} <= {
        "1.png", "once more.bmp"
    }  # fmt: skip
    assert len(image_variety.repeats) == 1


@pytest.mark.parametrize("tensor", [False, True])
def test_images_of_one_colour_are_counted(tensor, tmp_path):
    black = np.zeros((8, 8, 3), np.uint8)
    red = black + np.uint8([200, 0, 0])
    several = np.stack([black, red, create_pixels(0)])
    if tensor:
        np.savez(tmp_path / "set.npz", tensors=several.transpose(0, 3, 1, 2) / np.float32(255))
        data = read_dataset(tmp_path / "set.npz")
    else:
        np.savez(tmp_path / "set.npz", images=several)
        data = read_dataset(tmp_path / "set.npz")
    image_variety = measure_variety(build_model(), data)
    assert image_variety.plain_count == 2
    assert "2 of 3 images have a single colour" in " ".join(image_variety.collect_notices())


def test_a_dataset_of_one_class_is_reported(tmp_path):
    data = write_folder(tmp_path, {f"{i}.png": create_pixels(i) for i in range(3)})
    assert "all images are of `b`, one of 3 classes" in " ".join(
        measure_variety(build_model(), data).collect_notices()
    )
    assert measure_variety(build_model(labels=()), data).only_class is None
    assert (
        measure_variety(build_model(labels=("x", "y")), data).only_class is None
    )  # other folder names: classes are unknown


SMALL, WIDE, LARGE = (4, 4), (8, 16), (40, 40)


@pytest.mark.parametrize(
    ("contract", "sides", "message_parts"),
    [
        (PixelResize((8, 8)), [(8, 8), (10, 9)], ()),
        (
            PixelResize((8, 8)),
            [SMALL, (8, 8)],
            ("1 of 2 images (4 x 4) are enlarged to 8 x 8, by up to 2.0 times",),
        ),
        (PixelResize((8, 8)), [WIDE, WIDE], ("2 of 2 images (16 x 8) have another aspect ratio",)),
        (PixelResize((8, 8)), [(8, 8), LARGE], ("image sizes range from 8 x 8 to 40 x 40",)),
        (PixelResize((8, 8), "cover"), [WIDE], ()),
        (
            PixelResize((8, 8), "cover"),
            [(8, 36)],
            ("only reads the centre of 1 of 1 images (36 x 8), down to 22%",),
        ),
        (None, [LARGE], ("the network only reads the centre of 1 of 1 images (40 x 40)",)),
    ],
)
def test_image_sizes_far_from_the_input_size_are_reported(contract, sides, message_parts, tmp_path):
    for number, size in enumerate(sides):
        image = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    add = NetBuilder(3, 8, 8)
    crop = (8, 8) if contract is None else None
    add.inputs = (replace(add.inputs[0], preprocess=Preprocess(resize=contract, crop=crop)),)
    add("gap", GlobalAvgPool())
    size_report = collect_sizes(read_dataset(tmp_path), add.inputs[0])
    notices = list(size_report.collect_notices())
    assert len(notices) == len(message_parts)
    for notice, part in zip(notices, message_parts, strict=True):
        assert part in notice


def test_exif_rotation_applies_to_the_measured_size(tmp_path):
    image = Image.fromarray(np.zeros((8, 16, 3), np.uint8))
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    add = NetBuilder(3, 16, 8)
    add.inputs = (replace(add.inputs[0], preprocess=Preprocess(resize=PixelResize((16, 8)))),)
    assert collect_sizes(read_dataset(tmp_path), add.inputs[0]).original_sizes == ((16, 8),)
