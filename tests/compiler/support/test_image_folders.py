"""Folders of images: which files are read, and which are reported as skipped."""

import os

from PIL import Image

from tcc.compiler.support.image_folders import MAX_NAMED, detect_format, group_remarks, list_images

PICTURE = Image.new("RGB", (3, 2))


def read_warning(folder):
    """Return the only warning of a folder, without the folder's path."""
    (warning,) = list_images(folder).collect_warnings()
    return str(warning).replace(f"{folder}/", "")


def test_suffix_case_does_not_matter(tmp_path):
    names = ["b.png", "a/z.JPG", "a/c/y.jfif", "x.pnm", "w.PBM"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    folder_listing = list_images(tmp_path)
    assert folder_listing.images == tuple(sorted(tmp_path / name for name in names))
    assert folder_listing.skipped == ()
    assert list(folder_listing.collect_warnings()) == []


def test_other_files_are_named_and_counted(tmp_path):
    for name in ("notes.txt", "labels.csv", ".DS_Store", "set.npz", ".git/a.png", "__MACOSX/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"what stands here is text\n")
    folder_listing = list_images(tmp_path)
    assert folder_listing.images == folder_listing.skipped == ()
    assert read_warning(tmp_path) == (
        "note[E0719]: 6 files are not images and are ignored\n"
        "  --> .DS_Store\n"
        "   = it is hidden\n"
        "   = .git: a hidden folder, which is not searched\n"
        "   = __MACOSX: a hidden folder, which is not searched\n"
        "   = labels.csv\n"
        "   = notes.txt\n"
        "   = set.npz"
    )


def test_hidden_images_are_skipped(tmp_path):
    for name in ("a.png", "._a.png", "._b.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert list_images(tmp_path).images == (tmp_path / "a.png",)
    assert read_warning(tmp_path).startswith(
        "warning[E0717]: 2 files that look like images are skipped\n"
        "  --> ._a.png\n   = it is hidden\n   = ._b.jpg: it is hidden\n"
    )


def test_hidden_folder_is_read_if_named(tmp_path):
    (tmp_path / ".set").mkdir()
    (tmp_path / ".set/a.webp").write_bytes(b"")
    assert list_images(tmp_path / ".set").images == (tmp_path / ".set/a.webp",)


def test_skipped_images_are_named(tmp_path):
    PICTURE.save(tmp_path / "a.gif")
    assert read_warning(tmp_path) == (
        "warning[E0717]: 1 file that looks like an image is skipped\n"
        "  --> a.gif\n"
        "   = GIF is not supported\n"
        "   = help: supported formats: PNG, JPEG, BMP, TIFF, PPM, WEBP"
    )
    PICTURE.save(tmp_path / "b.avif", "PNG")
    PICTURE.save(tmp_path / "c", "PNG")
    (tmp_path / "d.dcm").write_bytes(b"no preamble")
    (tmp_path / "scan").write_bytes(bytes(128) + b"DICM" + bytes(100))
    os.mkfifo(tmp_path / "e.png")
    (tmp_path / "f.png").symlink_to("nowhere")
    (tmp_path / "real").mkdir()
    (tmp_path / "g").symlink_to("real")
    assert list_images(tmp_path).images == ()
    assert read_warning(tmp_path) == (
        "warning[E0717]: 8 files that look like images are skipped\n"
        "  --> a.gif\n"
        "   = GIF is not supported\n"
        "   = b.avif: it is a PNG file, but its name lacks the suffix\n"
        "   = c: it is a PNG file, but its name lacks the suffix\n"
        "   = d.dcm: .dcm is not supported\n"
        "   = e.png: it is not a file\n"
        "   = f.png: this link points to no file\n"
        "   = g: a link to a folder, which is not followed\n"
        "   = scan: DICOM is not supported\n"
        "   = help: supported formats: PNG, JPEG, BMP, TIFF, PPM, WEBP"
    )


def test_many_skipped_images_are_counted(tmp_path):
    for number in range(MAX_NAMED + 5):
        (tmp_path / f"{number:02}.gif").write_bytes(b"GIF89a")
    text = read_warning(tmp_path)
    assert text.startswith("warning[E0717]: 15 files that look like images are skipped\n")
    assert text.count(".gif") == MAX_NAMED
    assert "   = and 5 more\n" in text


def test_folder_with_only_unsupported_images_names_the_format(tmp_path):
    PICTURE.save(tmp_path / "a.gif")
    error = list_images(tmp_path).make_empty_error("E0711", tmp_path)
    assert error.message == "no image in this folder"
    assert error.notes == (f"{tmp_path}/a.gif: GIF is not supported",)


def test_equal_remarks_are_grouped():
    diagnostics = list(group_remarks([("a", ("one", "two")), ("b", ("two",)), ("c", ())]))
    assert [(d.severity, d.message, d.at.file, d.notes) for d in diagnostics] == [
        ("warning", "one", "a", ()),
        ("warning", "two", "a", ("b",)),
    ]


def test_formats_are_detected_by_their_first_bytes():
    assert detect_format(b"GIF87a..") == "GIF"
    assert detect_format(b"MM\0*") == "TIFF"
    assert detect_format(b"\0\0\0 ftypheic") == "HEIC"
    assert detect_format(b"") == detect_format(b"text") == ""
