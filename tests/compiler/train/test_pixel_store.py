"""Datasets decoded once: the stored pixels are those that deployment normalizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tcc.compiler.data import dataset
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.train.pixel_store import DecodeOptions, decode_images, find_duplicate_images

COVER_PREPROCESS = Preprocess(resize=PixelResize((8, 8), "cover"), mean=(0.5,), std=(0.25,))
CONTRACTS = {
    "plain": (COVER_PREPROCESS, (3, 8, 8)),
    "gray, max": (replace(COVER_PREPROCESS, color="gray", scale="max"), (1, 8, 8)),
    "bgr, raw, crop": (replace(COVER_PREPROCESS, color="bgr", raw=True, crop=(6, 9)), (3, 6, 9)),
}
SUFFIXES = ("png", "jpg", "BMP", "tiff", "ppm")


@pytest.fixture
def folder(tmp_path):
    """Twenty images of two classes, in several sizes and formats."""
    random = np.random.default_rng(0)
    for number in range(20):
        mode = ("RGB", "L")[number % 3 == 2]
        shape = (*random.integers(4, 40, 2), *((3,) if mode == "RGB" else ()))
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.{SUFFIXES[number % 5]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(path)
    return tmp_path / "set"


@pytest.fixture
def options(tmp_path):
    (tmp_path / "scratch").mkdir()
    return DecodeOptions(tmp_path / "scratch", threads=2)


def label_images(folder):
    data = dataset.read_dataset(folder)
    return replace(data, items=tuple(replace(item, label="a") for item in data.items))


def create_source(name="plain"):
    contract, shape = CONTRACTS[name]
    return Input("image", TensorType(shape), contract)


@pytest.mark.parametrize("name", CONTRACTS)
def test_inputs_match_deployment(folder, options, name):
    data = dataset.read_dataset(folder)
    reports = []
    store = decode_images(
        data,
        create_source(name),
        ("a", "b"),
        options,
        lambda *report_args: reports.append(report_args[1:]),
    )
    assert store.pixels.dtype == torch.uint8
    expected = np.stack(
        [data.read_tensor(index, create_source(name)) for index in range(len(data))]
    )
    assert np.array_equal(store.to_inputs(store.pixels).numpy(), expected)
    assert store.classes.tolist() == ["ab".index(item.label) for item in data.items]
    assert store.names == tuple(item.name for item in data.items)
    assert reports == [(n, 20) for n in range(21)]
    pixels, classes = store.gather_batch(torch.tensor([3, 0, 3]))
    assert torch.equal(pixels, store.pixels[[3, 0, 3]])
    assert torch.equal(classes, store.classes[[3, 0, 3]])


def test_large_datasets_are_memory_mapped(folder, options):
    data = dataset.read_dataset(folder)
    in_memory = decode_images(data, create_source(), ("a", "b"), options)
    mapped = decode_images(
        data, create_source(), ("a", "b"), replace(options, max_memory_bytes=20 * 3 * 64 - 1)
    )
    assert torch.equal(in_memory.pixels, mapped.pixels)
    assert list(options.scratch.iterdir()) == []
    with open("/proc/self/maps") as maps:
        assert f"{options.scratch}/levels-" in maps.read()
    exact = decode_images(
        data, create_source(), ("a", "b"), replace(options, max_memory_bytes=20 * 3 * 64)
    )
    assert torch.equal(exact.pixels, in_memory.pixels)


def test_full_disk_is_reported(folder, options, monkeypatch):
    def raise_full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", raise_full_disk)
    with pytest.raises(UserError, match="E1211") as caught:
        decode_images(
            dataset.read_dataset(folder),
            create_source(),
            ("a", "b"),
            replace(options, max_memory_bytes=10),
        )
    assert "No space left on device" in str(caught.value)
    assert list(options.scratch.iterdir()) == []


def damage_images(folder):
    """Damage three images of `a` in three ways."""
    files = sorted((folder / "a").iterdir())
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:40])
    files[2].write_bytes(b"no pixels at all")
    return [str(file) for file in files[:3]]


def test_damaged_images_are_refused_with_their_names(folder, options):
    damaged_names = damage_images(folder)
    with pytest.raises(UserError) as caught:
        decode_images(dataset.read_dataset(folder), create_source(), ("a", "b"), options)
    assert {d.at.file for d in caught.value.diagnostics} == set(damaged_names)
    assert {d.code for d in caught.value.diagnostics} <= {"E0702", "E0703"}
    assert "the file is empty" in str(caught.value)
    assert "--corrupt skip" in str(caught.value)


def test_damaged_images_are_skipped_and_counted(folder, options):
    full_set = dataset.read_dataset(folder)
    damaged_names = damage_images(folder)
    data = dataset.read_dataset(folder)
    store = decode_images(data, create_source(), ("a", "b"), replace(options, corrupt="skip"))
    assert len(store) == len(store.pixels) == len(store.classes) == len(store.checksums) == 17
    assert set(store.names).isdisjoint(damaged_names)
    (warning,) = store.warnings
    assert (warning.code, warning.message) == ("E1210", "3 damaged images are skipped")
    assert all(name in str(warning) for name in damaged_names)
    empty_store = decode_images(full_set.select_first(0), create_source(), ("a", "b"), options)
    assert len(empty_store) == 0
    for row, name in enumerate(store.names):
        index = next(i for i, item in enumerate(data.items) if item.name == name)
        expected = data.read_tensor(index, create_source())
        assert np.array_equal(store.to_inputs(store.pixels[row : row + 1])[0].numpy(), expected)


def test_class_with_only_damaged_images_is_refused(folder, options):
    for file in (folder / "a").iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        UserError, match="all 10 images of `a` cannot be read, so the class has no images"
    ):
        decode_images(
            dataset.read_dataset(folder),
            create_source(),
            ("a", "b"),
            replace(options, corrupt="skip"),
        )
    val_options = replace(options, corrupt="skip", split="val")
    with pytest.raises(UserError, match="all 10 images of `a` in `val` cannot be read"):
        decode_images(dataset.read_dataset(folder), create_source(), ("a", "b"), val_options)


def test_wrong_image_size_without_resize_is_refused(folder, options):
    fixed = Input("image", TensorType((3, 8, 8)), Preprocess())
    with pytest.raises(UserError, match="E0706"):
        decode_images(dataset.read_dataset(folder), fixed, ("a", "b"), options)


@pytest.mark.parametrize("raw", [False, True])
def test_tensors_reach_the_network_unchanged(tmp_path, options, raw):
    tensors = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", tensors=tensors, labels=[0, 1, 2, 0, 1, 2])
    data = dataset.read_dataset(tmp_path / "x.npz")
    tensor_input = Input("image", TensorType((3, 8, 8)), replace(COVER_PREPROCESS, raw=raw))
    store = decode_images(data, tensor_input, ("0", "1", "2"), options)
    assert store.pixels.dtype == torch.float32
    expected = np.stack([data.read_tensor(index, tensor_input) for index in range(6)])
    assert np.array_equal(store.to_inputs(store.pixels).numpy(), expected)
    assert store.classes.tolist() == [int(item.label) for item in data.items]


def test_network_with_vector_input(tmp_path, options):
    np.savez(tmp_path / "x.npz", tensors=np.eye(5, dtype=np.float32), labels=list("abcab"))
    data = dataset.read_dataset(tmp_path / "x.npz")
    store = decode_images(data, Input("x", TensorType((5,))), tuple("abc"), options)
    assert sorted(store.to_inputs(store.pixels).argmax(1).tolist()) == [0, 1, 2, 3, 4]


def test_images_with_equal_pixels_across_splits_are_detected(tmp_path, options):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (3, 20, 20, 3), np.uint8)
    for side, suffix in (("train", "png"), ("test", "bmp")):
        for number in range(3):
            path = tmp_path / side / "a" / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image_pixels = (
                pixels[number] if number else random.integers(0, 256, (20, 20, 3), np.uint8)
            )
            Image.fromarray(image_pixels).save(path)
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(
            tmp_path / side / "a" / f"black.{suffix}"
        )
    stores = {
        s: decode_images(label_images(tmp_path / s), create_source(), ("a",), options)
        for s in ("train", "test")
    }
    (warning,) = find_duplicate_images(stores)
    assert warning.code == "E1205"
    assert "2 images have the same input pixels" in warning.message
    assert all(f"{n}.png" in str(warning) and f"{n}.bmp" in str(warning) for n in (1, 2))
    assert "black" not in str(warning)
    assert find_duplicate_images({"train": stores["train"]}) == ()
