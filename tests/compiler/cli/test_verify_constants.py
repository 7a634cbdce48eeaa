"""One changed weight or scale, in a bundle that agrees with itself: `tcc verify` names it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import forged_bundles
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tcc.compiler.bundle import manifest, replay
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.support.diagnostics import make_file_span

ONNX = ("fp32", "fp16", "dynamic", "int8", "int8-i8", "int8-u8u8", "int8-qdq")
TFLITE = ("fp32", "fp16", "dynamic", "int8", "int8-i8", "int8-u8")
CHANGED = "is not what the network gives: layer"


@pytest.fixture
def build(tcc, home, images, state):
    """Build the example for a target at a precision; skip what this machine cannot build."""

    def run(target: str, precision: str, *words: str) -> Path:
        asked: tuple[object, ...] = ("--target", target, "--precision", precision, *words)
        if precision.startswith("int8"):
            asked = (*asked, "--data", images, "--floor", "min_cosine=0.1")
        ended = tcc("build", "tiny.yaml", *asked, "-q")
        if ended.code == 3:
            pytest.skip(ended.err.splitlines()[0])
        assert ended.code == 0, ended.err
        return home / f"build/tiny-{target}-{precision}"

    return run


def mask(folder: Path, target: str) -> None:
    """Let the goldens be what the changed artifact gives, and reseal the bundle."""
    from tcc.compiler.targets import devices

    forged_bundles.forged(folder, target)
    about = manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")
    bundle, device = Bundle(folder, about), devices.find(target, make_file_span(target))
    tensors = [replay.read_input_tensor(bundle, case) for case in about.goldens.cases]
    for case, outputs in zip(
        about.goldens.cases, device.infer(bundle.model, bundle.input, tensors), strict=True
    ):
        for name, path in case.outputs.items():
            (folder / path).write_bytes(outputs[name].astype("<f4").tobytes())
    forged_bundles.forged(folder, target)


def change_onnx(path: Path, wanted: Callable[[str, np.ndarray], bool]) -> str:
    """Change the last bit of one number of a tensor; return the tensor's name."""
    model = onnx.load_model_from_string(path.read_bytes())
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if wanted(tensor.name, values):
            raw = values.reshape(-1).view(np.uint8)
            raw[0] ^= 1
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            path.write_bytes(model.SerializeToString(deterministic=True))
            return tensor.name
    raise AssertionError("no such tensor")


def change_tflite(path: Path, *, scale: bool) -> None:
    """Change a byte of the largest constant, or a scale of it."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    tensors = [t for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is not None]
    if scale:
        tensors = [t for t in tensors if t.quantization and t.quantization.scale is not None]
    tensor = max(tensors, key=lambda t: len(model.buffers[t.buffer].data))
    if scale:
        scales = np.array(tensor.quantization.scale, np.float32)
        scales[-1] *= np.float32(1.01)
        tensor.quantization.scale = scales
    else:
        data = np.array(model.buffers[tensor.buffer].data, np.uint8)
        data[-1] ^= 1
        model.buffers[tensor.buffer].data = data
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def check(tcc, folder: Path, *words: str) -> str:
    """Verify with the network: exit code 4, and the error's text."""
    plain = tcc("verify", folder, "--trust")
    assert plain.code == 0, plain.err  # its goldens are its own
    assert "its weights and scales were not compared: --spec SPEC" in plain.out
    ended = tcc("verify", folder, "--trust", *(words or ("--spec", "tiny.yaml")))
    assert ended.code == 4, ended.out
    assert CHANGED in ended.err
    return ended.err


@pytest.mark.parametrize("precision", ONNX)
def test_a_weight_of_an_onnx_file(tcc, build, precision):
    folder = build("onnxruntime", precision)
    good = tcc("verify", folder, "--spec", "tiny.yaml", "--json")
    assert good.code == 0, good.err
    (file,) = good.document["bundles"][0]["constants"]
    assert (file["holds"], file["differences"]) == (True, [])
    name = change_onnx(folder / "model/model.onnx", lambda n, v: v.size > 30 and v.ndim > 1)
    mask(folder, "onnxruntime")
    error = check(tcc, folder)
    assert f"tensor `{name}`[0, 0" in error
    assert "layer `" in error


@pytest.mark.parametrize("precision", ["int8", "int8-i8", "int8-qdq", "dynamic"])
def test_a_channel_scale_of_an_onnx_file(tcc, build, precision):
    folder = build("onnxruntime", precision)
    floats = lambda n, v: v.dtype == np.float32 and v.ndim == 1 and v.size > 3  # noqa: E731
    name = change_onnx(folder / "model/model.onnx", floats)
    mask(folder, "onnxruntime")
    assert f"tensor `{name}`[0" in check(tcc, folder)


@pytest.mark.parametrize("precision", TFLITE)
def test_a_weight_of_a_tflite_file(tcc, build, precision):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    folder = build("tflite", precision)
    assert tcc("verify", folder, "--spec", "tiny.yaml").code == 0
    change_tflite(folder / "model/model.tflite", scale=False)
    mask(folder, "tflite")
    error = check(tcc, folder)
    # The layer that a rectifier is the end of, in the file as in the program.
    assert "layer `relu`, tensor `" in error
    assert "`[3, 2, 2, 2] is" in error


@pytest.mark.parametrize("precision", ["dynamic", "int8", "int8-i8"])
def test_a_channel_scale_of_a_tflite_file(tcc, build, precision):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    folder = build("tflite", precision)
    change_tflite(folder / "model/model.tflite", scale=True)
    mask(folder, "tflite")
    assert "scale`[3] is" in check(tcc, folder)


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_a_program_in_the_bundle_is_enough(tcc, build, target):
    folder = build(target, "int8", "--probes")
    ended = tcc("verify", folder)
    assert ended.code == 0, ended.err
    assert "all are the network's" in ended.out


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        pytest.param("host", "fp32", marks=pytest.mark.slow),
        ("host", "int8"),
        pytest.param("arm-a7", "fp32", marks=pytest.mark.slow),
        pytest.param("arm-a7", "int8", marks=pytest.mark.slow),
        pytest.param("arm-a53", "int8", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("files", [("tiny-run",), ("libtiny.a", "libtiny.so", "tiny-run")])
def test_a_weight_and_a_scale_in_the_libraries(tcc, build, target, precision, files):
    """The bytes lie in the libraries as kernels read them, behind no table of names."""
    from tcc.compiler.frontend.spec import load

    folder = build(target, precision)
    constants = tcc("verify", folder, "--spec", "tiny.yaml", "--json").document["bundles"][0]
    assert [each["file"] for each in constants["constants"]] == [
        "libtiny.a", "libtiny.so", "tiny-run",
    ]  # fmt: skip
    assert all(each["holds"] for each in constants["constants"])
    for layer, number in (("conv", 0), ("linear", -1)):
        changed = shutil.copytree(folder, folder.with_name(f"changed-{layer}"))
        tensor = largest_constant(folder, target, layer)
        for file in files:
            path = changed / "model" / file
            data = path.read_bytes()
            assert data.count(tensor) == 1, file
            raw = bytearray(tensor)
            raw[number] ^= 1
            path.write_bytes(data.replace(tensor, bytes(raw)))
        forged_bundles.forged(changed, target)
        ended = tcc("verify", changed, "--trust", "--spec", "tiny.yaml", "--json")
        assert ended.code == 4
        found = {each["file"]: each for each in ended.document["bundles"][0]["constants"]}
        for file in files:
            (difference,) = found[file]["differences"]
            assert difference["layer"] in load(Path("tiny.yaml")).graph.types
            assert difference["differing"] == 1
        assert all(each["holds"] for name, each in found.items() if name not in files)


def largest_constant(folder: Path, target: str, layer: str) -> bytes:
    """Return the bytes of a constant of a layer as the artifact has them."""
    from tcc.backends.arm.execute import stored_constants
    from tcc.backends.arm.machine import MACHINES
    from tcc.compiler.driver import bundle_program
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.targets import devices

    about = manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")
    bundle, device, spec = (
        Bundle(folder, about),
        devices.find(target, make_file_span(target)),
        load(Path("tiny.yaml")),
    )
    program = bundle_program.rebuild_program(bundle, device, spec, None)
    sources = bundle_program.find_constant_sources(bundle, device, spec, None, program)
    assert sources.start_model
    machine = next(one for one in MACHINES if one.target.name == target)
    constants, _ = stored_constants.place_constants(machine, sources.start_model)
    ours = [one for one in constants if layer in (one.layer, *one.name.split(".")) or True]
    return max(ours, key=lambda one: one.tensor.nbytes).tensor.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_weight_of_a_page(tcc, build, precision):
    folder = build("web", precision)
    assert tcc("verify", folder, "--spec", "tiny.yaml").code == 0
    name = change_onnx(folder / "model/model.onnx", lambda n, v: v.size > 30 and v.ndim > 1)
    forged_bundles.forged(folder, "web")
    ended = tcc("verify", folder, "--spec", "tiny.yaml")
    assert ended.code == 4
    assert f"tensor `{name}`" in ended.err or "does not give its goldens" in ended.err
    assert f"tensor `{name}`[0, 0" in ended.out


def test_an_operator_that_is_another_one(tcc, build):
    folder = build("onnxruntime", "fp32")
    path = folder / "model/model.onnx"
    model = onnx.load_model_from_string(path.read_bytes())
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "Elu"
    path.write_bytes(model.SerializeToString(deterministic=True))
    mask(folder, "onnxruntime")
    ended = tcc("verify", folder, "--spec", "tiny.yaml")
    assert ended.code == 4
    assert "operator Relu of layer `relu` is another one" in ended.err


def test_other_passes_are_reported_as_not_compared(tcc, build):
    folder = build("onnxruntime", "fp32", "--passes", "fused")
    ended = tcc("verify", folder, "--spec", "tiny.yaml")
    assert ended.code == 0, ended.err
    assert "its weights and scales were not compared" in ended.out
