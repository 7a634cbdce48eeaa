"""`tcc.calibrate` and `tcc.build`, from Python."""

import pytest

import tcc
from tcc.compiler.quant.calibration_document import read


def test_a_spec_is_calibrated_and_written(home, images):
    spec = tcc.load("fastnet_block")
    found = tcc.calibrate(spec, images, "ax620", out=home / "c.json", method="minmax")
    assert (found.target, found.method, found.data.images) == ("ax620", "minmax", 9)
    again = read(home / "c.json")
    assert again.values == found.values


def test_wrong_names_are_said(images):
    with pytest.raises(tcc.UserError, match="did you mean `mse`"):
        tcc.calibrate("fastnet_block", images, method="msee")


def test_too_few_images_are_refused(images):
    with pytest.raises(tcc.UserError, match="fewer than 10 different images"):
        tcc.calibrate("fastnet_block", images, method="minmax", min_images=10)


def test_integers_are_built_from_images_or_from_a_file(home, images):
    whole = tcc.build("tiny.yaml", "onnxruntime", out="a", precision="int8", data=images)
    about = whole.manifest.calibration
    assert about.measured.outputs["logits"].cosine > 0.999
    tcc.calibrate("tiny.yaml", images, out="c.json")
    again = tcc.build("tiny.yaml", "onnxruntime", out="b", precision="int8", calibration="c.json")
    first, second = (b.model.joinpath("model.onnx").read_bytes() for b in (whole, again))
    assert first == second
    mixed = tcc.build(
        "tiny.yaml", "ort", out="c", precision="int8", data=images, min_cosine=1 - 1e-13, mixed=True
    )
    assert mixed.manifest.calibration.in_float


def test_integers_below_the_floor_are_refused(home, images):
    with pytest.raises(tcc.BelowFloor, match="the mean cosine of `logits` is"):
        tcc.build("tiny.yaml", "onnxruntime", precision="int8", data=images, min_cosine=1.0)
    assert not (home / "build").exists()


def test_integers_need_images(home):
    with pytest.raises(tcc.UserError, match="calibrate with which images"):
        tcc.build("tiny.yaml", "onnxruntime", precision="int8")


def test_a_module_trains_and_its_weights_are_built(home):
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    network = tcc.torch("tiny.yaml")
    x = torch.randn(4, *network.graph.inputs[0].type.shape)
    network.train()(x)["logits"].square().sum().backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    tcc.save_weights(torch.optim.swa_utils.AveragedModel(network), "w.safetensors")
    again = tcc.torch("tiny.yaml", "w.safetensors")
    assert list(again.state_dict()) == list(network.state_dict())
    for name, values in again.state_dict().items():
        assert torch.equal(values, network.state_dict()[name])
    bundle = tcc.build("tiny.yaml", "onnxruntime", weights="w.safetensors")
    assert bundle.manifest.weights.notice is None


def test_weights_that_are_none_are_not_saved(home):
    torch = pytest.importorskip("torch", reason="needs the extra `train`")
    with pytest.raises(tcc.UserError, match=r"E0516.*holds 0 networks"):
        tcc.save_weights(torch.nn.Linear(2, 2), "w.safetensors")
    network = tcc.torch("tiny.yaml")
    with pytest.raises(tcc.UserError, match=r"E0516.*holds 2 networks"):
        tcc.save_weights(torch.nn.ModuleList([network, tcc.torch("tiny.yaml")]), "w.safetensors")
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(tcc.UserError, match="E0506"):
        tcc.save_weights(network, "w.safetensors")
    assert not (home / "w.safetensors").exists()


def test_a_module_needs_torch(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(tcc.MissingTool, match=r"pip install 'tcc-compiler\[train\]'"):
        tcc.torch("ddsnet")
