"""`tcc show --format svg`, `png` and `pdf`."""

import xml.etree.ElementTree as ET

import pytest


def test_svg_is_printed(tcc):
    outcome = tcc("show", "tiny.yaml", "--format", "svg")
    assert (outcome.code, outcome.err) == (0, "")
    root = ET.fromstring(outcome.out)
    assert root[0].text == "tiny: 135 params, 6.924 k MACs"
    assert {"conv", "linear", "cat, dog, owl"} <= set(root.itertext())


def test_svg_file_is_written_and_rewritten(tcc, home):
    for level in ("block", "op", "block"):
        outcome = tcc("show", "tiny.yaml", "--format", "svg", "-o", "tiny.svg", "--level", level)
        assert outcome.code == 0
    assert (home / "tiny.svg").read_text() == tcc("show", "tiny.yaml", "--format", "svg").out


def test_svg_file_of_another_program_is_kept(tcc, home):
    (home / "mine.svg").write_text("<svg/>")
    outcome = tcc("show", "tiny.yaml", "--format", "svg", "-o", "mine.svg")
    assert outcome.code == 2
    assert "error[E0602]: cannot replace this" in outcome.err
    assert (home / "mine.svg").read_text() == "<svg/>"


def test_svg_as_json(tcc):
    document = tcc("show", "tiny.yaml", "--format", "svg", "--level", "op", "--json").document
    assert (document["name"], document["level"]) == ("tiny", "op")
    assert document["svg"].startswith("<!-- tcc show -->\n<svg ")


def test_fused_graph_is_drawn(tcc):
    """The convolution that absorbed the batch norm has the batch norm's name."""
    outcome = tcc("show", "tiny.yaml", "--format", "svg", "--stage", "fused")
    assert ">batch_norm: conv<" in outcome.out
    assert ">conv<" not in outcome.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "svg", "--level", "layer"), "'layer' is not one of 'block', 'op'"),
        (
            ("--level", "op"),
            "error[E0601]: `--level` has no effect: it is only for figures (svg, png, pdf)",
        ),
        (("--format", "svg", "--stage", "spec"), "error[E0601]: the stage `spec` is text"),
        (
            ("--direction", "right"),
            "error[E0601]: `--direction` has no effect: it is only for figures (svg, png, pdf)",
        ),
        (
            ("--legend",),
            "error[E0601]: `--legend` has no effect: it is only for figures (svg, png, pdf)",
        ),
        (
            ("--format", "onnx", "--legend", "-o", "x"),
            "error[E0601]: `--legend` has no effect: it is only for figures (svg, png, pdf)",
        ),
        (("--format", "svg", "--direction", "up"), "'up' is not one of 'down', 'right'"),
        (("--format", "png"), "error[E0601]: PNG is binary and cannot be printed"),
        (("--format", "pdf"), "error[E0601]: PDF is binary and cannot be printed"),
    ],
)
def test_incompatible_options_are_refused(tcc, options, message):
    outcome = tcc("show", "tiny.yaml", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_figure_of_a_bundle_is_refused(tcc, built):
    outcome = tcc("show", built, "--format", "svg")
    assert outcome.code == 2
    assert "a bundle contains its graph only as text" in outcome.err


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-1.4\n")])
def test_png_and_pdf_files_are_written_and_rewritten(tcc, home, kind, start):
    command = ("show", "tiny.yaml", "--format", kind, "-o", f"tiny.{kind}")
    file_bytes = []
    for look in ((), ("--direction", "right", "--legend"), ()):
        assert tcc(*command, *look).code == 0
        file_bytes.append((home / f"tiny.{kind}").read_bytes())
    assert file_bytes[0] == file_bytes[2] != file_bytes[1]
    assert all(data.startswith(start) for data in file_bytes)


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_png_or_pdf_file_of_another_program_is_kept(tcc, home, kind):
    from PIL import Image

    path = home / f"mine.{kind}"
    Image.new("RGB", (4, 4)).save(path)
    bytes_before = path.read_bytes()
    outcome = tcc("show", "tiny.yaml", "--format", kind, "-o", path.name)
    assert outcome.code == 2
    assert "error[E0602]: cannot replace this" in outcome.err
    assert path.read_bytes() == bytes_before


def test_direction_and_legend_options(tcc):
    args = ("show", "tiny.yaml", "--format", "svg")
    down_svg, right_svg = (
        ET.fromstring(tcc(*args, "--direction", d).out) for d in ("down", "right")
    )
    assert int(down_svg.get("height")) > int(down_svg.get("width"))
    assert int(right_svg.get("height")) < int(right_svg.get("width"))
    assert "convolution, linear" in tcc(*args, "--legend").out


@pytest.mark.parametrize(
    ("options", "name"),
    [(("--format", "svg"), "net.png"), ((), "net.svg"), (("--format", "png"), "net.ONNX")],
)
def test_file_name_of_another_format_is_refused(tcc, home, options, name):
    outcome = tcc("show", "tiny.yaml", *options, "-o", name)
    assert outcome.code == 2
    end = name.partition(".")[2]
    assert f"but the file name has the suffix of {end.upper()}" in outcome.err
    assert f"use `--format {end.lower()}`" in outcome.err
    assert not (home / name).exists()
