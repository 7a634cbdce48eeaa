"""`tcc show --format svg`, png and pdf."""

import xml.etree.ElementTree as ET

import pytest


def test_prints_a_picture(tcc):
    found = tcc("show", "tiny.yaml", "--format", "svg")
    assert (found.code, found.err) == (0, "")
    root = ET.fromstring(found.out)
    assert root[0].text == "tiny: 135 params, 6.924 k MACs"
    assert {"conv", "linear", "cat, dog, owl"} <= set(root.itertext())


def test_writes_and_rewrites_a_file(tcc, home):
    for level in ("block", "op", "block"):
        found = tcc("show", "tiny.yaml", "--format", "svg", "-o", "tiny.svg", "--level", level)
        assert found.code == 0
    assert (home / "tiny.svg").read_text() == tcc("show", "tiny.yaml", "--format", "svg").out


def test_keeps_a_file_that_it_did_not_write(tcc, home):
    (home / "mine.svg").write_text("<svg/>")
    found = tcc("show", "tiny.yaml", "--format", "svg", "-o", "mine.svg")
    assert found.code == 2
    assert "error[E0602]: will not replace this" in found.err
    assert (home / "mine.svg").read_text() == "<svg/>"


def test_as_json(tcc):
    found = tcc("show", "tiny.yaml", "--format", "svg", "--level", "op", "--json").document
    assert (found["name"], found["level"]) == ("tiny", "op")
    assert found["svg"].startswith("<!-- tcc show -->\n<svg ")


def test_the_fused_graph_is_drawn_as_devices_run_it(tcc):
    """The convolution that swallowed the batch norm bears its name."""
    found = tcc("show", "tiny.yaml", "--format", "svg", "--stage", "fused")
    assert ">batch_norm: conv<" in found.out
    assert ">conv<" not in found.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "svg", "--level", "layer"), "'layer' is not one of 'block', 'op'"),
        (("--level", "op"), "error[E0601]: `--level` has no effect: only pictures have it"),
        (("--format", "svg", "--stage", "spec"), "error[E0601]: the stage `spec` is text"),
        (
            ("--direction", "right"),
            "error[E0601]: `--direction` has no effect: only pictures have it",
        ),
        (("--legend",), "error[E0601]: `--legend` has no effect: only pictures have it"),
        (
            ("--format", "onnx", "--legend", "-o", "x"),
            "error[E0601]: `--legend` has no effect: only pictures have it",
        ),
        (("--format", "svg", "--direction", "up"), "'up' is not one of 'down', 'right'"),
        (("--format", "png"), "error[E0601]: PNG is not text"),
        (("--format", "pdf"), "error[E0601]: PDF is not text"),
    ],
)
def test_what_does_not_go_together(tcc, words, said):
    found = tcc("show", "tiny.yaml", *words)
    assert (found.code, found.out) == (2, "")
    assert said in found.err


def test_a_bundle_is_no_picture(tcc, built):
    found = tcc("show", built, "--format", "svg")
    assert found.code == 2
    assert "a bundle holds its graph as text" in found.err


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-1.4\n")])
def test_writes_and_rewrites_pictures_of_other_kinds(tcc, home, kind, start):
    command = ("show", "tiny.yaml", "--format", kind, "-o", f"tiny.{kind}")
    written = []
    for look in ((), ("--direction", "right", "--legend"), ()):
        assert tcc(*command, *look).code == 0
        written.append((home / f"tiny.{kind}").read_bytes())
    assert written[0] == written[2] != written[1]
    assert all(data.startswith(start) for data in written)


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_keeps_a_picture_that_it_did_not_write(tcc, home, kind):
    from PIL import Image

    path = home / f"mine.{kind}"
    Image.new("RGB", (4, 4)).save(path)
    before = path.read_bytes()
    found = tcc("show", "tiny.yaml", "--format", kind, "-o", path.name)
    assert found.code == 2
    assert "error[E0602]: will not replace this" in found.err
    assert path.read_bytes() == before


def test_a_picture_lies_down_and_explains_itself(tcc):
    words = ("show", "tiny.yaml", "--format", "svg")
    down, right = (ET.fromstring(tcc(*words, "--direction", d).out) for d in ("down", "right"))
    assert int(down.get("height")) > int(down.get("width"))
    assert int(right.get("height")) < int(right.get("width"))
    assert "convolution, linear" in tcc(*words, "--legend").out


@pytest.mark.parametrize(
    ("words", "name"),
    [(("--format", "svg"), "net.png"), ((), "net.svg"), (("--format", "png"), "net.ONNX")],
)
def test_a_file_that_is_named_as_another_format_is_refused(tcc, home, words, name):
    found = tcc("show", "tiny.yaml", *words, "-o", name)
    assert found.code == 2
    end = name.partition(".")[2]
    assert f"and the file is named as {end.upper()}" in found.err
    assert f"say `--format {end.lower()}`" in found.err
    assert not (home / name).exists()
