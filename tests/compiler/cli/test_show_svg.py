"""`tcc show --format svg`."""

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
        (("--level", "op"), "error[E0601]: only pictures have levels"),
        (("--format", "svg", "--stage", "spec"), "error[E0601]: the stage `spec` is text"),
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
