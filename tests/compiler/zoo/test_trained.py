"""The trained networks of the zoo: each is whole, fits itself, and says what it is worth."""

import json

import pytest

import tcc
from tcc.compiler.data import weights
from tcc.compiler.driver import pipeline
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.train import recipe
from tcc.compiler.zoo import shipped, trained

NETWORKS = trained.read_networks()
LARGEST = 1_000_000
"""Bytes of a network's weights, at most."""


def test_there_is_the_one_that_the_project_file_names(root):
    assert 'spec = "ddsnet-blood"' in (root / "tcc.toml").read_text()
    assert "ddsnet-blood" in NETWORKS


@pytest.mark.parametrize("name", NETWORKS)
def test_its_files_fit_each_other(name):
    network = NETWORKS[name]
    spec = network.load()
    assert (spec.name, spec.graph.name) == (name, name)
    assert network.weights.stat().st_size < LARGEST
    zoo_weights = pipeline.load_zoo_weights(network, spec.graph)
    assert (zoo_weights.origin.origin, zoo_weights.origin.file, zoo_weights.origin.notice) == (
        "zoo",
        name,
        None,
    )
    document = calibration_document.read_document(network.calibration)
    calibration_file.check(document, pipeline.describe_network(spec), zoo_weights.origin, name)
    calibration_file.decode_calibration(document, pipeline.lower_for_int8(spec, zoo_weights), name)
    assert recipe.read_recipe(shipped.list_recipes()[network.training.recipe]).epochs > 1


@pytest.mark.parametrize("name", NETWORKS)
def test_its_card_says_what_it_is(name):
    text = NETWORKS[name].card.read_text()
    assert "Not a medical device" in text
    assert all(f"## {part}" in text for part in ("Data", "Training", "Limits"))
    assert "| float |" in text
    assert "| int8, tflite |" in text


def test_a_file_of_that_name_is_meant_first(tmp_path):
    (tmp_path / "ddsnet-blood").write_text("tcc: 1\n")
    assert trained.find_by_name("ddsnet-blood", tmp_path) is None
    assert trained.find_by_name("ddsnet-blood", tmp_path.parent) == NETWORKS["ddsnet-blood"]
    assert trained.find_by_name("ddsnet", tmp_path) is None


def test_the_networks_of_a_spec():
    assert "ddsnet-blood" in trained.list_names_of_spec(shipped.list_specs()["ddsnet"])
    assert trained.list_names_of_spec(shipped.list_specs()["vgg11"]) == ()


def test_other_settings_may_need_other_weights():
    spec = NETWORKS["ddsnet-blood"].load({"growth": "16"})
    assert spec.params["size"] == 128
    with pytest.raises(UserError) as caught:
        pipeline.load_zoo_weights(NETWORKS["ddsnet-blood"], spec.graph)
    diagnostic = caught.value.diagnostics[0]
    assert (diagnostic.code, diagnostic.help) == (
        "E0504",
        "check that the weights were trained with these parameters of the spec",
    )


def test_the_python_interface_takes_its_weights_and_calibration(tmp_path):
    bundle = tcc.build("ddsnet-blood", "onnxruntime", out=tmp_path, precision="int8")
    assert bundle.manifest.weights.file == "ddsnet-blood"
    assert bundle.manifest.calibration.measured.where == "that a program drew"
    random_bundle = tcc.build(tcc.load("ddsnet-blood"), "onnxruntime", out=tmp_path, seed=0)
    assert random_bundle.manifest.weights.origin == "random"


def test_its_weights_are_finite_and_of_one_digest():
    network = NETWORKS["ddsnet-blood"]
    tensors = weights.read_weights(network.weights, network.load().graph)
    calibration = json.loads(network.calibration.read_text())
    assert calibration["weights"]["digest"] == weights.digest(tensors)
