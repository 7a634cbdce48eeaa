"""Which runtime releases were tested against the recorded outputs."""

import tomllib
from importlib.resources import files

import pytest

from tcc.compiler.support import external_tools
from tcc.compiler.support.external_tools import ProvenRelease, Tool


def create_tool(version):
    return Tool("onnxruntime", "run ONNX files", version, builds=False)


@pytest.fixture
def record(monkeypatch):
    releases = (
        ProvenRelease("onnxruntime", "1.2.3", ("small",), ""),
        ProvenRelease("onnxruntime", "1.3.0", ("small",), "small int8 onnxruntime: `a` gives"),
    )
    monkeypatch.setattr(external_tools, "load_proven_releases", lambda: releases)


@pytest.mark.parametrize(
    ("version", "messages"),
    [
        ("1.2.3", []),
        (None, []),
        ("9.9", ["onnxruntime 9.9 was not tested for exact outputs; tested releases: 1.2.3"]),
        (
            "1.3.0",
            [
                "onnxruntime 1.3.0 computes different outputs: small int8 onnxruntime: `a` gives; exact releases: 1.2.3"
            ],
        ),
    ],
)
def test_untested_and_differing_releases_are_reported(record, version, messages):
    assert list(external_tools.describe_unproven_releases([create_tool(version)])) == messages


def test_other_tools_are_not_reported(record):
    assert (
        list(external_tools.describe_unproven_releases([Tool("onnx", "write ONNX files", "1")]))
        == []
    )


def test_record_has_two_exact_releases_of_each_runtime():
    text = (files("tcc.compiler.support") / external_tools.PROVEN_RECORD).read_text()
    releases = tomllib.loads(text)
    assert releases.keys() == {"onnxruntime", "ai-edge-litert"}
    for versions in releases.values():
        assert len([release for release in versions.values() if not release["found"]]) >= 2
