"""Datasets for training: splits, groups, classes and refused datasets."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tcc.compiler.data import split_file
from tcc.compiler.data.dataset import Item
from tcc.compiler.support.diagnostics import UserError, make_file_span
from tcc.compiler.train import image_table
from tcc.compiler.train.image_split import ImageSplit, SplitOptions, read_split
from tcc.compiler.train.seeded_split import SplitShares, group_units, parse_shares, split_images

NUMBER = iter(range(1 << 30))


def write_image(path, value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    value = next(NUMBER) if value is None else value
    Image.fromarray(np.full((2, 2, 3), [value % 256, value // 256 % 256, 7], np.uint8)).save(path)


def write_images(folder, *names):
    for name in names:
        write_image(folder / name)


def write_flat_set(folder, count=6, classes="abc"):
    write_images(folder, *(f"{c}/{n}.png" for c in classes for n in range(count)))
    return folder


def write_split_set(folder, count=3, classes="abc", splits=("train", "val", "test")):
    write_images(
        folder, *(f"{s}/{c}/{n}.png" for s in splits for c in classes for n in range(count))
    )
    return folder


def write_table(folder, *lines, head="file,label,group", end="\n", start=""):
    (folder / "index.csv").write_bytes((start + end.join([head, *lines]) + end).encode())


def list_names(data, folder):
    return {item.path.relative_to(folder).as_posix() for item in data.items}


def list_codes(image_split: ImageSplit):
    return [warning.code for warning in image_split.warnings]


def assert_fails(folder, code, *fragments, options=None, at=None):
    with pytest.raises(UserError) as caught:
        read_split(folder, options)
    first_diagnostic = caught.value.diagnostics[0]
    assert first_diagnostic.code == code, caught.value
    for fragment in fragments:
        assert fragment in str(caught.value)
    if at is not None:
        assert (first_diagnostic.at.line, first_diagnostic.at.column) == at
        assert first_diagnostic.at.file == str(folder / "index.csv")


def test_folders_with_three_splits(tmp_path):
    image_split = read_split(write_split_set(tmp_path, 12))
    assert image_split.classes == ("a", "b", "c")
    assert {s: len(d) for s, d in image_split.datasets.items()} == {
        "train": 36,
        "val": 36,
        "test": 36,
    }
    for split_name, data in image_split.datasets.items():
        assert all(item.path.parts[-3] == split_name for item in data.items)
        assert all(item.path.parts[-2] == item.label for item in data.items)
    assert list_codes(image_split) == ["E1208"]


@pytest.mark.parametrize("name", ["valid", "Validation", "VAL"])
def test_other_names_of_the_val_split(tmp_path, name):
    write_split_set(tmp_path, 12, splits=("Train", name, "TEST"))
    assert len(read_split(tmp_path).val) == 36


def test_class_may_have_the_name_of_a_split(tmp_path):
    assert read_split(write_flat_set(tmp_path, 12, ("test", "control"))).classes == (
        "control",
        "test",
    )


def test_missing_val_is_split_from_train_with_a_warning(tmp_path):
    image_split = read_split(write_split_set(tmp_path, 20, splits=("train", "test")))
    assert len(image_split.train) + len(image_split.val) == 60
    assert 9 <= len(image_split.val) <= 12
    assert len(image_split.test) == 60
    assert list_codes(image_split) == ["E1208", "E1209"]
    assert f"{len(image_split.val)} images of `train` are used for it, by the seed" in str(
        image_split.warnings[1]
    )


def test_missing_test_split_is_reported(tmp_path):
    image_split = read_split(write_split_set(tmp_path, 12, splits=("train", "val")))
    assert len(image_split.test) == 0
    assert list_codes(image_split) == ["E1208", "E1209"]


def test_seeded_split_keeps_the_share_of_each_class(tmp_path):
    write_flat_set(tmp_path, 40, "ab")
    image_split = read_split(tmp_path)
    for label in image_split.classes:
        counts = [
            sum(i.label == label for i in data.items) for data in image_split.datasets.values()
        ]
        assert counts == [28, 6, 6]
    assert list_codes(image_split) == ["E1208"]
    repeated, reseeded = read_split(tmp_path), read_split(tmp_path, SplitOptions(seed=1))
    assert repeated.train.digest == image_split.train.digest
    assert reseeded.train.digest != image_split.train.digest
    halves = read_split(tmp_path, SplitOptions(shares=SplitShares(1, 1, 0)))
    assert [len(data) for data in halves.datasets.values()] == [40, 40, 0]


def test_split_ignores_file_names(tmp_path):
    for folder in "xy":
        for number in range(20):
            name = f"{number if folder == 'x' else 99 - number}.png"
            write_image(tmp_path / folder / "ab"[number % 2] / name, number)
    x_split, y_split = (read_split(tmp_path / folder) for folder in "xy")
    assert [d.digest for d in x_split.datasets.values()] == [
        d.digest for d in y_split.datasets.values()
    ]


def test_groups_are_not_split(tmp_path):
    write_flat_set(tmp_path, 24, "ab")
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png"))
    write_table(tmp_path, *(f"{f},{f[0]},p{int(Path(f).stem) // 3}" for f in files))
    image_split = read_split(tmp_path)
    assert list_codes(image_split) == []
    groups_by_split = [
        {image_split.groups[i.name] for i in data.items} for data in image_split.datasets.values()
    ]
    assert sum(map(len, groups_by_split)) == len(set.union(*groups_by_split)) == 8
    assert all(groups_by_split)


def test_duplicate_images_are_in_one_split(tmp_path):
    for number in range(12):
        for copy in "12":
            write_image(tmp_path / "ab"[number % 2] / f"{number}-{copy}.png", number)
    image_split = read_split(tmp_path)
    digests_by_split = [set(data.digests) for data in image_split.datasets.values()]
    assert sum(map(len, digests_by_split)) == len(set.union(*digests_by_split)) == 12


@pytest.mark.parametrize(
    ("end", "start", "separator"),
    [("\r\n", "\ufeff", ","), ("\r", "", ";"), ("\n", "\ufeff", "\t")],
)
def test_tables_with_other_line_ends_and_separators(tmp_path, end, start, separator):
    write_images(tmp_path, *(f"pictures/{n}.PNG" for n in range(24)))
    lines = [f"pictures\\{n}.PNG,{'ab'[n % 2]},,p{n % 12}" for n in range(24)]
    lines = [line.replace(",,", ",x,").replace(",", separator) for line in lines]
    head = separator.join(["File", "LABEL", "comment", "group"])
    write_table(tmp_path, *lines, "", head=head, end=end, start=start)
    image_split = read_split(tmp_path)
    assert image_split.classes == ("a", "b")
    assert len(set(image_split.groups.values())) == 12


def test_table_gives_splits_and_folders_give_labels(tmp_path):
    write_flat_set(tmp_path, 12, "ab")
    lines = [f"{c}/{n}.png,{('train', 'val', 'test')[n % 3]}" for c in "ab" for n in range(12)]
    write_table(tmp_path, *lines, head="file,split")
    image_split = read_split(tmp_path)
    assert [len(data) for data in image_split.datasets.values()] == [8, 8, 8]
    assert {i.path.parent.name == i.label for i in image_split.val.items} == {True}


BAD_TABLES = {
    "no file column": ("name,label\na/0.png,a\n", "E1201", "no column `file`", (1, 1)),
    "empty": ("", "E1201", "no column `file`", (1, 1)),
    "two columns of a name": ("file,label,Label\n", "E1201", "two columns `label`", (1, 1)),
    "cells": ("file,label\na/0.png\n", "E1201", "1 cells, but the table has 2 columns", (2, 1)),
    "empty group": ("file,label,group\na/0.png,a,\n", "E1201", "no group", (2, 1)),
    "side": ("file,split\na/0.png,dev\n", "E1201", "use train, val or test", (2, 1)),
    "absolute": ("file,label\n/a/0.png,a\n", "E1201", "inside the table's folder", (2, 1)),
    "above": ("file,label\na/../0.png,a\n", "E1201", "inside the table's folder", (2, 1)),
    "drive": ("file,label\nC:\\0.png,a\n", "E1201", "inside the table's folder", (2, 1)),
    "quote": ('file,label\n"a/0.png,a\n', "E1201", "not valid CSV", (2, 1)),
    "NUL": ("file,label\na/0\0.png,a\n", "E1201", "NUL", (2, 1)),
    "long cell": (f"file,label\n{'a' * 200_000},a\n", "E1201", "field larger", (2, 1)),
    "twice": ("file,label\na/0.png,a\na/./0.png,a\n", "E1202", "first listed in line 2", (3, 1)),
    "absent": ("file,label\na/9.png,a\n", "E1202", "no image `a/9.png`", (2, 1)),
    "case": ("file,label\nA/0.PNG,a\n", "E1202", "there is `a/0.png`", (2, 1)),
    "a group on two sides": (
        "file,split,group\na/0.png,train,p\na/1.png,val,q\nb/0.png,train,r\nb/1.png,val,p\n",
        "E1203", "group `p` is in 2 splits: train, val", (5, 1),
    ),
    "label and folder": (
        "file,label\na/0.png,a\na/1.png,a\nb/0.png,a\nb/1.png,b\n",
        "E1202", "the label is `a`, but the file is in `b`", (4, 1),
    ),
    "latin": ("file,label\na/0.png,caf\udce9\n", "E1201", "UTF-8", (2, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TABLES)
def test_invalid_table_is_refused(tmp_path, name):
    text, code, fragment, at = BAD_TABLES[name]
    write_flat_set(tmp_path, 2, "ab")
    (tmp_path / "index.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert_fails(tmp_path, code, fragment, at=at)


def test_images_without_a_table_line_are_refused(tmp_path):
    write_flat_set(tmp_path, 20, "a")
    write_table(tmp_path, "a/0.png,a,p")
    assert_fails(tmp_path, "E1202", "19 images have no line in this table", "and 9 more")


def test_table_size_is_limited(tmp_path, monkeypatch):
    write_flat_set(tmp_path, 4, "ab")
    write_table(tmp_path, *["a/0.png,a,p"] * 50)
    monkeypatch.setattr(image_table, "MAX_LINES", 20)
    assert_fails(tmp_path, "E1201", "more than 20 lines")
    monkeypatch.setattr(image_table, "MAX_BYTES", 1 << 6)
    assert_fails(tmp_path, "E1201", "larger than")


def test_table_split_must_match_the_folder(tmp_path):
    write_split_set(tmp_path, 1, "ab", ("train", "val"))
    write_table(tmp_path, "train/a/0.png,train", "train/b/0.png,val", "val/a/0.png,val", "val/b/0.png,val",
          head="file,split")  # fmt: skip
    assert_fails(tmp_path, "E1202", "the split is `val`, but the file is in `train`", at=(3, 1))


def _write_two_images(folder):
    write_flat_set(folder, 5, "ab")
    write_images(folder, "c/0.png", "c/1.png")


def _write_few_groups(folder):
    write_flat_set(folder, 6, "ab")
    write_table(folder, *(f"{c}/{n}.png,{c},p{n % 2}" for c in "ab" for n in range(6)))


def _copy_across_splits(folder):
    write_split_set(folder, 3, "ab")
    (folder / "test/b/copy.jpg").write_bytes((folder / "train/b/1.png").read_bytes())


def _link_across_splits(folder):
    write_split_set(folder, 3, "ab")
    os.symlink(folder / "train/b/1.png", folder / "val/b/link.png")


def _link_class(folder):
    write_flat_set(folder, 4, "ab")
    write_images(folder.parent / "elsewhere", "0.png")
    os.symlink(folder.parent / "elsewhere", folder / "c")


def _write_unlisted_image(folder):
    write_split_set(folder, 3, "ab")
    write_images(folder, "more/0.png")


HOSTILE = {
    "nothing": (lambda f: None, "E0711", "no image"),
    "loose images": (lambda f: (write_flat_set(f, 3, "ab"), write_images(f, "0.png")), "E1200", "not in a class folder"),
    "loose images of a side": (
        lambda f: (write_split_set(f, 3, "ab"), write_images(f, "val/0.png")), "E1200", "such as val/0.png",
    ),
    "a folder next to the splits": (_write_unlisted_image, "E1200", "these folders contain images: more"),
    "two images of a class": (_write_two_images, "E1206", "class `c` has 2 images: too few"),
    "groups of a class": (_write_few_groups, "E1206", "has 6 images of 2 groups: too few for 3 splits"),
    "one class": (lambda f: write_flat_set(f, 6, "a"), "E1207", "only one class, `a`"),
    "an empty class folder": (lambda f: (write_flat_set(f, 6), (f / "d").mkdir()), "E1206", "there is no image in it"),
    "an empty class folder of a side": (
        lambda f: (write_split_set(f), (f / "val" / "d").mkdir()), "E1206", "val/d",
    ),
    "a class that is a link": (_link_class, "E1206", "links are not followed"),
    "classes by case": (lambda f: write_flat_set(f, 4, ("Cat", "cat", "dog")), "E1207", "only by case: Cat, cat"),
    "the same file on two sides": (_copy_across_splits, "E1204", "in `train` and in `test`", "copy.jpg"),
    "a link to another side": (_link_across_splits, "E1204", "in `train` and in `val`", "link.png"),
    "no class to learn": (
        lambda f: (write_split_set(f, 3, "ab"), write_images(f, "test/c/0.png")), "E1206", "these classes have no training images: c",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_invalid_dataset_is_refused(tmp_path, name):
    make, code, *fragments = HOSTILE[name]
    folder = tmp_path / "set"
    folder.mkdir()
    make(folder)
    assert_fails(folder, code, *fragments)


def test_too_many_classes_are_refused(tmp_path):
    write_image(tmp_path / "0" / "0.png")
    data = (tmp_path / "0" / "0.png").read_bytes()
    for number in range(1, 10_000):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "0.png").write_bytes(data)
    assert_fails(
        tmp_path, "E1207", "10,000 classes, the limit is 1,024", "if these folders are patients"
    )


def test_missing_or_unlabelled_dataset_is_refused(tmp_path):
    assert_fails(tmp_path / "none", "E0710")
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 2, 2, 3), np.uint8))
    assert_fails(tmp_path / "x.npz", "E1200", "no labels")


def test_an_array_is_split(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 2, 2, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(60) % 12)
    image_split = read_split(tmp_path / "x.npz")
    assert image_split.classes == tuple(map(str, range(12)))
    assert sum(map(len, image_split.datasets.values())) == 60
    assert list_codes(image_split)[0] == "E1208"


def test_hidden_files_are_skipped_with_a_warning(tmp_path):
    write_flat_set(tmp_path, 12, "ab")
    write_images(tmp_path, ".ipynb_checkpoints/0.png", "a/._1.png", "__MACOSX/b/0.png")
    image_split = read_split(tmp_path)
    assert image_split.classes == ("a", "b")
    assert sum(map(len, image_split.datasets.values())) == 24
    warnings_text = "\n".join(map(str, image_split.warnings))
    assert f"{tmp_path}/a/._1.png\n   = it is hidden\n" in warnings_text
    assert (
        f"{tmp_path}/.ipynb_checkpoints\n   = a hidden folder, which is not searched\n"
        in warnings_text
    )
    assert "note[E0719]: 2 files are not images and are ignored" in warnings_text


def test_classes_follow_the_labels_of_the_network(tmp_path):
    write_flat_set(tmp_path, 12, ("Cat", "dog"))
    image_split = read_split(tmp_path, SplitOptions(labels=("dog", "cat")))
    assert image_split.classes == ("dog", "cat")
    assert {i.label for i in image_split.train.items} == {"dog", "cat"}
    assert_fails(
        tmp_path,
        "E1207",
        "no class `dog`",
        "did you mean `dogs`?",
        options=SplitOptions(labels=("cat", "dogs")),
    )
    assert_fails(
        tmp_path,
        "E1207",
        "no images of the network's classes bird",
        options=SplitOptions(labels=("cat", "bird", "dog")),
    )


def test_conflicting_labels_and_few_images_are_reported(tmp_path):
    write_split_set(tmp_path, 3, "ab", ("train", "val"))
    (tmp_path / "train/b/copy.png").write_bytes((tmp_path / "train/a/1.png").read_bytes())
    write_images(tmp_path, "train/c/0.png")
    image_split = read_split(tmp_path)
    assert list_codes(image_split) == ["E1208", "E1209", "E1213", "E1213", "E1214"]
    warnings_text = "\n".join(map(str, image_split.warnings))
    assert "few training images: a (3), b (4), c (1)" in warnings_text
    assert "`val` has no image of c" in warnings_text


@pytest.mark.parametrize(
    "text", ["1,0,0", "0,1,1", "1,1", "a,b,c", "nan,1,1", "1,-1,1", "inf,1,1", ""]
)
def test_invalid_split_shares_are_refused(text):
    with pytest.raises(UserError) as caught:
        parse_shares(text, make_file_span("--split"))
    assert caught.value.diagnostics[0].code == "E1212"


def test_split_shares_may_be_percentages():
    assert parse_shares("70,20,10", make_file_span("--split")).by_split == {
        "train": 0.7,
        "val": 0.2,
        "test": 0.1,
    }
    assert parse_shares("8,2,0", make_file_span("--split")).by_split == {"train": 0.8, "val": 0.2}


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.integers(0, 20)), min_size=6),
    st.integers(0, 1000),
)
def test_units_are_in_one_split_in_any_order(rows, seed):
    items = {
        str(n): Item(f"{content:064}", Path(str(n)), label)
        for n, (_, label, content) in enumerate(rows)
    }
    groups = {str(n): f"g{group}" for n, (group, _, _) in enumerate(rows)}
    labels = {name: item.label or "" for name, item in items.items()}
    units = group_units(items, groups)
    split_by_name = split_images(labels, units, SplitShares(), seed)
    assert set(split_by_name) == set(items)
    for key in (groups, {name: item.digest for name, item in items.items()}):
        sides_by_key: dict[str, set[str]] = {}
        for name, split_name in split_by_name.items():
            sides_by_key.setdefault(key[name], set()).add(split_name)
        assert all(len(key_sides) == 1 for key_sides in sides_by_key.values())
    backwards = dict(reversed(labels.items()))
    reordered = group_units(dict(reversed(items.items())), dict(reversed(groups.items())))
    assert split_images(backwards, reordered, SplitShares(), seed) == split_by_name


@given(st.lists(st.integers(7, 60), min_size=2, max_size=4), st.integers(0, 1000))
def test_each_class_is_in_each_split_by_its_share(counts, seed):
    labels = {f"{c}-{n}": str(c) for c, count in enumerate(counts) for n in range(count)}
    split_by_name = split_images(labels, {name: name for name in labels}, SplitShares(), seed)
    for c, count in enumerate(counts):
        for split_name, share in SplitShares().by_split.items():
            image_count = sum(
                s == split_name for name, s in split_by_name.items() if labels[name] == str(c)
            )
            assert image_count >= 1
            assert abs(image_count - share * count) < 2


def test_reference_datasets_are_read(shared):
    image_split = read_split(shared / "data" / "lung_histology_lc25000_224")
    assert [len(data) for data in image_split.datasets.values()] == [1036, 148, 296]
    assert list_codes(image_split) == ["E0719"]  # a text file is among the images
    assert tuple(image_split.datasets) == split_file.SPLITS


def test_missing_images_of_a_class_give_one_message(tmp_path):
    write_flat_set(tmp_path, 3, "ab")
    present_lines = [f"{c}/{n}.png,{c},p{c}{n}" for c in "ab" for n in range(3)]
    write_table(
        tmp_path, *present_lines, *(f"df/{n}.png,df,p{n}" for n in range(50)), "b/9.png,b,p"
    )
    with pytest.raises(UserError) as caught:
        read_split(tmp_path, SplitOptions())
    first_diagnostic, second = caught.value.diagnostics
    assert first_diagnostic.message == "50 images of class `df` are missing"
    assert (first_diagnostic.at.line, first_diagnostic.notes[0], first_diagnostic.notes[-1]) == (
        8,
        "line 8: df/0.png",
        "and 45 more",
    )
    assert second.message == "there is no image `b/9.png`"
