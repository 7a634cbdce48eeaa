"""`tcc init`: the new project is valid, builds, and replaces no file."""

import os
import shlex

import pytest

from tcc.compiler.support.project_file import find_project


def test_printed_next_commands_work_in_a_new_folder(tcc, home, monkeypatch):
    init_outcome = tcc("init", "lesions")
    assert (init_outcome.code, init_outcome.err) == (0, "")
    assert init_outcome.out == (
        "written: lesions/lesions.yaml, lesions/tcc.toml\n"
        "\n"
        "next:\n"
        "  cd lesions\n"
        "  tcc check                             # show the layers and their cost\n"
        "  tcc show --format svg -o lesions.svg  # draw the network\n"
        "  tcc train --data images               # train it; `images` needs one folder of images"
        " per class\n"
        "  tcc build                             # build it for ONNX Runtime, with random weights"
        " if it is not trained\n"
    )
    monkeypatch.chdir(home / "lesions")
    assert tcc("check", "--strict").code == 0
    assert tcc("fmt", "--check", "lesions.yaml").code == 0
    for line in init_outcome.out.splitlines()[4:]:
        args = shlex.split(line, comments=True)[1:]
        outcome = tcc(*args)
        if args[0] == "train":  # refused: there are no images
            assert (outcome.code, "error[E0710]" in outcome.err) == (2, True), outcome.err
        else:
            assert outcome.code == 0, f"{line}\n{outcome.err}"
    assert sorted(path.name for path in (home / "lesions").iterdir()) == [
        "build", "lesions.svg", "lesions.yaml", "tcc.toml",
    ]  # fmt: skip
    assert (home / "lesions/build/lesions-onnxruntime-fp32/manifest.json").is_file()


def test_network_is_named_after_the_current_folder(tcc, home, monkeypatch):
    for folder, name in (("moles", "moles"), ("2 moles", "net")):
        (home / folder).mkdir()
        monkeypatch.chdir(home / folder)
        document = tcc("init", "--json").document
        assert document["files"] == [f"{name}.yaml", "tcc.toml"]
        assert document["next"][0] == "tcc check"
        assert tcc("check", "--strict", "--json").document["name"] == name


def test_commented_lines_of_the_project_file_are_valid(tcc, home):
    tcc("init", "moles")
    path = home / "moles/tcc.toml"
    lines = path.read_text().splitlines()[1:]
    path.write_text("\n".join(line.removeprefix("# ") for line in lines))
    project = find_project(path.parent)
    assert (project.spec, project.targets) == ("moles.yaml", ("onnxruntime",))
    assert (project.data, project.params) == (path.parent / "images", {"width": "32"})


LABELS = [
    "width",
    "C",
    "if",
    "true",
    "Null",
    "01",
    "1.5",
    "a b",
    "it's",
    'say "x"',
    "[z]",
    "#",
    "-",
    "y: n",
    "é",
]


def test_labels_and_size(tcc, home):
    outcome = tcc("init", "moles", "--labels", ",".join(LABELS), "--size", 24)
    assert outcome.code == 0, outcome.err
    from tcc.compiler.frontend.spec import load

    path = home / "moles/moles.yaml"
    spec = load(path)
    assert spec.warnings == ()
    assert spec.graph.outputs[0].labels == tuple(LABELS)
    assert spec.graph.inputs[0].type.shape == (3, 24, 24)
    assert tcc("fmt", "--check", path).code == 0


@pytest.mark.parametrize("size", [8, 4096])
def test_smallest_and_largest_size_are_valid(tcc, home, size):
    assert tcc("init", "moles", "--size", size).code == 0
    assert tcc("check", "moles/moles.yaml", "--strict").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("2d",), "error[E0601]: this is not a valid name of a network\n  --> command line: init 2d"),
        (("a b",), "error[E0601]: this is not a valid name of a network"),
        (("moles", "--labels", "one"), "error[E0601]: `--labels` needs two or more"),
        (("moles", "--labels", "one,"), "error[E0601]: `--labels` has an empty or repeated value"),
        (("moles", "--labels", "one,one"), "error[E0601]: `--labels` has an empty or repeated value"),
        (("moles", "--size", "7"), "error: Invalid value for '--size'"),
        (("tiny.yaml",), "error[E0601]: `tcc init` creates a folder"),
    ],
)  # fmt: skip
def test_refused_arguments_write_nothing(tcc, home, arguments, message):
    outcome = tcc("init", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert [path.name for path in home.iterdir()] == ["tiny.yaml"]


def test_existing_project_file_is_kept(tcc, home):
    (home / "moles").mkdir()
    project, spec = home / "moles/tcc.toml", home / "moles/moles.yaml"
    project.write_text("mine")
    outcome = tcc("init", "moles")
    assert (outcome.code, outcome.out) == (2, "")
    assert (
        "error[E0602]: cannot replace this: it already exists\n  --> moles/tcc.toml" in outcome.err
    )
    assert project.read_text() == "mine"
    assert not spec.exists()
    spec.symlink_to("nowhere")
    outcome = tcc("init", "moles")
    assert outcome.err.count("E0602") == 2
    assert spec.is_symlink()


def test_second_init_changes_nothing(tcc, home):
    assert tcc("init", "moles").code == 0
    files_before = {path: path.read_bytes() for path in (home / "moles").iterdir()}
    assert tcc("init", "moles", "--size", 32).code == 2
    assert {path: path.read_bytes() for path in (home / "moles").iterdir()} == files_before


def test_full_disk_is_reported(tcc, home, monkeypatch):
    from tcc.compiler.support import atomic_files

    write = atomic_files.write_file

    def raise_full_disk(path, data, is_ours):
        if path.name == "tcc.toml":
            raise atomic_files.explain(OSError(28, os.strerror(28)), path, "write this")
        write(path, data, is_ours)

    monkeypatch.setattr(atomic_files, "write_file", raise_full_disk)
    outcome = tcc("init", "moles")
    assert outcome.code == 1
    assert "error[E0604]" in outcome.err
    assert list((home / "moles").iterdir()) == []


def test_spec_name_as_a_folder_is_refused(tcc, home):
    outcome = tcc("init", "new/skin.yaml")
    assert outcome.code == 2
    assert "error[E0601]: `tcc init` creates a folder, but " in outcome.err
    assert "= help: `tcc init new/skin` creates new/skin/skin.yaml" in outcome.err
    assert not (home / "new").exists()
