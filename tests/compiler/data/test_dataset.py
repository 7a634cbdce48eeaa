"""Datasets: reading, splitting and refusing them. Names and order have no effect."""

import re
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcc.compiler.data import npz
from tcc.compiler.data.dataset import (
    HELD_OUT_INTERVAL,
    DataSet,
    Item,
    check_dataset,
    get_class_indices,
    read_dataset,
)
from tcc.compiler.ir import image_limits
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support.diagnostics import UserError

RNG = np.random.default_rng(3)
CONTRACT = Preprocess(resize=PixelResize((8, 8)), mean=(0.5,), std=(0.25,))
SOURCE = Input("image", TensorType((3, 8, 8)), CONTRACT)
VECTOR = Input("features", TensorType((5,)))


def write_picture(path, size=(9, 7), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
    Image.fromarray(RNG.integers(0, 256, shape, np.uint8), mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Ten images in folders of three classes."""
    for number in range(10):
        write_picture(tmp_path / "set" / "abc"[number % 3] / f"{number}.png")
    return tmp_path / "set"


def assert_fails(code, run, *fragments):
    with pytest.raises(UserError) as caught:
        run()
    assert caught.value.diagnostics[0].code == code
    for fragment in fragments:
        assert fragment in str(caught.value)
    return caught.value.diagnostics


def assert_same(actual, expected):
    assert actual.digest == expected.digest
    assert actual.digests == expected.digests
    for index in range(len(actual)):
        assert np.array_equal(
            actual.read_tensor(index, SOURCE), expected.read_tensor(index, SOURCE)
        )


def test_file_and_folder_names_do_not_change_a_dataset(folder, tmp_path):
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        shutil.copy(path, other_folder / f"{number:03}.bmp")
    assert_same(read_dataset(folder), read_dataset(other_folder))


def test_class_folders_are_labels(folder):
    data = read_dataset(folder)
    assert {item.label for item in data.items} == {"a", "b", "c"}
    assert all(item.path.parent.name == item.label for item in data.items)
    label_indices = get_class_indices(data, ("B", "other", "a"))
    assert {(item.label, index) for item, index in zip(data.items, label_indices, strict=True)} == {
        ("a", 2), ("b", 0), ("c", None),
    }  # fmt: skip


def test_label_with_thousands_of_digits_is_not_an_index():
    data = DataSet(tuple(Item(label, Path("set.npz"), label) for label in ("2", "9" * 5000)))
    assert get_class_indices(data, ()) == (2, None)


def test_folder_with_loose_images_has_no_classes(folder):
    write_picture(folder / "own.png")
    data = read_dataset(folder)
    assert len(data) == 11
    assert {item.label for item in data.items} == {None}


def test_added_image_changes_the_digest_and_keeps_the_order(folder):
    original = read_dataset(folder)
    write_picture(folder / "a" / "more.png")
    extended = read_dataset(folder)
    assert extended.digest != original.digest
    assert [d for d in extended.digests if d in original.digests] == list(original.digests)


def test_held_out_set_is_one_image_in_four_by_content(folder, tmp_path):
    data = read_dataset(folder)
    fit_set, held_out_set = data.split()
    assert len(held_out_set) == len(data) // HELD_OUT_INTERVAL
    assert sorted(fit_set.digests + held_out_set.digests) == list(data.digests)
    shutil.copytree(folder / "a", folder / "again")
    twice = read_dataset(folder)
    assert len(twice) > len(data)
    fit_set, held_out_set = twice.split()
    assert not set(fit_set.digests) & set(held_out_set.digests)


def test_few_images_are_in_both_sets(tmp_path):
    for number in range(HELD_OUT_INTERVAL - 1):
        write_picture(tmp_path / f"{number}.png")
    data = read_dataset(tmp_path)
    assert data.split() == (data, data)
    assert len(data.select_first(1)) == 1
    assert data.select_first(None).digests == data.digests


def test_grey_images_of_other_sizes_are_converted(tmp_path):
    write_picture(tmp_path / "grey.png", (31, 5), "L")
    data = check_dataset(read_dataset(tmp_path), SOURCE)
    tensor = data.read_tensor(0, SOURCE)
    assert tensor.shape == (3, 8, 8)
    assert np.array_equal(tensor[0], tensor[2])


def test_empty_folders_and_other_paths_are_refused(tmp_path):
    assert_fails("E0711", lambda: read_dataset(tmp_path), "no image in this folder", str(tmp_path))
    assert_fails("E0710", lambda: read_dataset(tmp_path / "none"), "no such file or folder")
    assert_fails(
        "E0710",
        lambda: read_dataset(write_picture(tmp_path / "one.png")),
        "not a folder or an .npz file",
    )


def test_damaged_images_are_all_listed(folder):
    bad = sorted(folder.rglob("*.png"))[:2]
    for path in bad:
        path.write_bytes(path.read_bytes()[:60])
    data = read_dataset(folder)
    diagnostics = data.collect_errors(SOURCE).diagnostics
    assert sorted(diagnostic.at.file for diagnostic in diagnostics) == sorted(map(str, bad))
    assert {diagnostic.code for diagnostic in diagnostics} == {"E0703"}


def test_images_are_refused_for_a_network_without_image_input(folder):
    assert_fails(
        "E0625",
        lambda: check_dataset(read_dataset(folder), VECTOR),
        "does not take an image",
        "of 5",
    )


def test_array_order_and_compression_do_not_matter(tmp_path):
    images = RNG.integers(0, 256, (6, 9, 7, 3), np.uint8)
    labels = np.array(["x", "y", "x", "z", "y", "x"])
    np.savez(tmp_path / "one.npz", images=images, labels=labels)
    np.savez_compressed(tmp_path / "two.npz", images=images[::-1], labels=labels[::-1])
    first_set, second_set = read_dataset(tmp_path / "one.npz"), read_dataset(tmp_path / "two.npz")
    assert_same(first_set, second_set)
    assert [item.label for item in first_set.items] == [item.label for item in second_set.items]
    assert check_dataset(first_set, SOURCE) is first_set


def test_tensors_reach_the_network_unchanged(tmp_path):
    tensors = RNG.normal(size=(4, 5))
    np.savez(tmp_path / "set.npz", tensors=tensors, labels=np.arange(4))
    data = check_dataset(read_dataset(tmp_path / "set.npz"), VECTOR)
    for index, item in enumerate(data.items):
        assert np.array_equal(
            data.read_tensor(index, VECTOR), tensors[item.index].astype(np.float32)
        )
    assert get_class_indices(data, ()) == tuple(item.index for item in data.items)
    assert_fails(
        "E0713", lambda: check_dataset(data, SOURCE), "tensors of 3x8x8", "this file has 5"
    )


def test_tensors_become_pixel_values_for_a_raw_input(tmp_path):
    from dataclasses import replace

    write_picture(tmp_path / "one.png", (8, 8))
    data = read_dataset(tmp_path)
    np.savez(tmp_path / "set.npz", tensors=data.read_tensor(0, SOURCE)[None])
    raw = replace(SOURCE, preprocess=replace(CONTRACT, raw=True))
    reread = read_dataset(tmp_path / "set.npz")
    assert np.array_equal(reread.read_tensor(0, raw), data.read_tensor(0, raw))
    assert np.array_equal(reread.read_tensor(0, SOURCE), data.read_tensor(0, SOURCE))


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ({"other": np.zeros(3)}, "the file contains other"),
        ({"images": np.zeros((2, 8, 8, 3))}, "`images` is float64 (2, 8, 8, 3), not uint8"),
        ({"images": np.zeros((2, 8, 8), np.uint8)}, "not uint8 (N, height, width, 3)"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "`images` is empty"),
        ({"tensors": np.zeros((2, 5), np.int32)}, "`tensors` is int32 (2, 5), not floats"),
        ({"tensors": np.full((2, 5), np.nan)}, "`tensors` contains NaN or infinity"),
        ({"tensors": np.array([{}])}, "Python objects"),
        ({"tensors": np.zeros((2, 5)), "labels": np.zeros(3, int)}, "`labels` is int64 (3)"),
    ],
)  # fmt: skip
def test_invalid_arrays_are_refused(tmp_path, content, fragment):
    np.savez(tmp_path / "set.npz", **content)
    assert_fails("E0712", lambda: read_dataset(tmp_path / "set.npz"), fragment)


def write_packed(
    path, name, shape, dtype="|u1", content=b"", *, kind=zipfile.ZIP_DEFLATED, version=1
):
    """Write an .npz file with one array and any header."""
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head = head.ljust(118) + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(head))
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr(f"{name}.npy", b"\x93NUMPY" + bytes((version, 0)) + size + head + content)


@pytest.mark.parametrize(
    ("shape", "dtype", "fragment"),
    [
        ("(1, 40000, 40000, 3)", "|u1", "`images` takes more than 4096 MiB"),
        ("(10, 8192, 8192, 3)", "|u1", "more than 100 times as much"),
        ("(-1, 8, 8, 3)", "|u1", ""),
        ("(0, 1000000000000000000000000, 8, 3)", "|u1", ""),
        ("(8, 8, 8, 3)", "|u1", ""),
        ("(9223372036854775807, 2, 2, 3)", "|u1", "the limit is 1,048,576"),
        ("(1000000000000,)", "|V0", "`images` has 1,000,000,000,000 items, the limit is"),
        ("(3,)", "|O", "Python objects"),
        ("(", "|u1", ""),
        ("(" * 60 + ")" * 60, "|u1", ""),
    ],
)
def test_false_headers_are_refused_before_memory_is_allocated(tmp_path, shape, dtype, fragment):
    path = tmp_path / "set.npz"
    write_packed(path, "images", shape, dtype, bytes(30))
    tracemalloc.start()
    assert_fails("E0712", lambda: read_dataset(path), fragment)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_decompression_bomb_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, images=np.zeros((2, 4096, 4096, 3), np.uint8))
    assert path.stat().st_size < 1 << 20
    assert_fails(
        "E0712",
        lambda: read_dataset(path),
        " KiB expand to 96 MiB",
        "more than 100 times as much",
    )


def test_oversized_array_header_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        size = struct.pack("<I", 1 << 26)
        file.writestr("images.npy", b"\x93NUMPY\2\0" + size + bytes(1 << 26))
    assert_fails(
        "E0712", lambda: read_dataset(path), "the header of `images` is larger than 10000 bytes"
    )


def test_too_many_arrays_are_refused(tmp_path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as file:
        for number in range(15_000):
            file.writestr(f"{number:040}", b"")
    assert_fails("E0712", lambda: read_dataset(path), "the file contains too many arrays")


def test_compression_that_numpy_does_not_write_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    write_packed(path, "images", "(1, 2, 2, 3)", "|u1", bytes(12), kind=zipfile.ZIP_LZMA)
    assert_fails(
        "E0712", lambda: read_dataset(path), "a compression method that NumPy does not write"
    )
    write_packed(path, "images", "(1, 2, 2, 3)", "|u1", bytes(12), version=2)
    assert len(read_dataset(path)) == 1


def test_too_large_array_image_is_located_by_index(tmp_path):
    np.savez(tmp_path / "set.npz", images=np.zeros((1, 65537, 1, 3), np.uint8))
    data = read_dataset(tmp_path / "set.npz")
    diagnostics = assert_fails("E0704", lambda: data.read_tensor(0, SOURCE), image_limits.TOO_LARGE)
    assert diagnostics[0].at.file == f"{tmp_path}/set.npz[0]"


def test_dataset_keeps_warnings_about_skipped_and_reduced_images(folder):
    assert read_dataset(folder).warnings == ()
    Image.new("RGB", (3, 3)).save(folder / "a" / "x.gif")
    Image.new("RGBA", (3, 3), (9, 9, 9, 100)).save(folder / "a" / "y.png")
    image_set = read_dataset(folder)
    assert [(d.code, d.at.file) for d in image_set.warnings] == [
        ("E0717", str(folder / "a/x.gif")), ("E0718", str(folder / "a/y.png")),
    ]  # fmt: skip
    assert len(image_set) == 11


def test_damaged_and_too_large_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, images=RNG.integers(0, 256, (4, 30, 30, 3), np.uint8))
    data = path.read_bytes()
    for size in (0, 30, len(data) // 2):
        path.write_bytes(data[:size])
        assert_fails("E0712", lambda: read_dataset(path))
    path.write_bytes(data[:400] + bytes(200) + data[600:])
    assert_fails("E0712", lambda: read_dataset(path))
    path.write_bytes(data)
    monkeypatch.setattr(npz, "MAX_BYTES", 1000)
    diagnostics = assert_fails("E0712", lambda: read_dataset(path))
    assert re.search("`images` takes more than", diagnostics[0].label)
