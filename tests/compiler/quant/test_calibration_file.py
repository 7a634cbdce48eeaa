"""Calibration files round-trip, and other files are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quant_sets import make_lowered_model, write_tensors

from tcc.compiler.bundle.manifest import NetworkRecord, WeightsOrigin
from tcc.compiler.passes import INT8
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibrate import calibrate
from tcc.compiler.quant.calibration_document import decode, encode
from tcc.compiler.quant.methods.kl_cosine import KL_COSINE
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.support import json_records
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.json_records import seal
from tcc.testing.nets import build_dense, build_gated

NETWORK = NetworkRecord("net", "", "0" * 64, {"classes": "5"})
WEIGHTS = WeightsOrigin("file", "1" * 64, "w.safetensors", None, None)
PROVENANCE = calibration_file.Provenance("kl-cosine", "ax620", "drop_train_only", NETWORK, WEIGHTS)


@pytest.fixture(scope="module")
def calibration_setup(tmp_path_factory):
    """A lowered model, its calibration and the calibration document."""
    model = make_lowered_model(build_dense(), INT8)
    folder = tmp_path_factory.mktemp("set")
    data = write_tensors(folder, model.graph.inputs[0].type.shape, 8)
    calibrated = calibrate(model, data, KL_COSINE)
    factors = {model.graph.nodes[1].name: np.linspace(0.5, 2, 8, dtype=np.float32)}
    # The guard may choose `minmax`, which stores no weights.
    rounded = round_nearest(model, calibrated.calibration.ranges)
    full_calibration = replace(
        calibrated.calibration, rounded=rounded, factors=factors, in_float=frozenset({"concat"})
    )
    outcome = replace(calibrated, calibration=full_calibration)
    return model, outcome, calibration_file.build_document(PROVENANCE, model, outcome, data)


def assert_refused(code, run, *fragments):
    with pytest.raises(UserError) as caught:
        run()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    for fragment in fragments:
        assert fragment in str(diagnostic)


def test_calibration_files_round_trip_exactly(calibration_setup, tmp_path):
    model, outcome, document = calibration_setup
    path = tmp_path / "c.json"
    path.write_bytes(encode(document))
    reread = calibration_document.read_document(path)
    assert encode(reread) == encode(document)
    assert calibration_document.digest(reread) == calibration_document.digest(document)
    actual, expected = (
        calibration_file.decode_calibration(reread, model, "c.json"),
        outcome.calibration,
    )
    assert actual.ranges == expected.ranges
    assert actual.in_float == expected.in_float
    assert actual.rounded.keys() == expected.rounded.keys() != set()
    for name, rounded_layer in expected.rounded.items():
        for field in ("weight", "scale", "bias"):
            actual_tensor, expected_tensor = (
                getattr(rounded_layer, field),
                getattr(actual.rounded[name], field),
            )
            assert actual_tensor.dtype == expected_tensor.dtype
            assert np.array_equal(actual_tensor, expected_tensor)
    for name, factors in expected.factors.items():
        assert np.array_equal(actual.factors[name], factors)
    assert (
        reread.values[model.graph.nodes[1].name].trace == outcome.traces[model.graph.nodes[1].name]
    )
    calibration_file.check(reread, NETWORK, WEIGHTS, "c.json")


def test_a_calibration_file_records_its_inputs(calibration_setup):
    json_document = json.loads(encode(calibration_setup[2]))
    assert json_document["tcc_calibration"] == 3
    assert json_document["data"]["images"] == 8
    assert json_document["data"]["held_out"] == 2
    assert json_document["model"]["params"] == {"classes": "5"}
    assert json_document["weights"]["digest"] == "1" * 64
    assert json_document["target"] == "ax620"
    assert set(json_document["made_with"]) == {"tcc", "numpy", "onnxruntime"}
    assert set(json_document["judged"]) >= {"minmax", "kl-cosine"}


def change_document(document, *path, to):
    """Return the bytes of the file with one change and a valid seal."""
    json_document = json.loads(encode(document))
    parent = json_document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = to
    json_document["seal"] = seal(json_document)
    return json.dumps(json_document).encode()


def test_a_file_of_the_previous_version_is_read_unchanged(calibration_setup):
    model, outcome, document = calibration_setup
    json_document = json_records.encode(document) | {"tcc_calibration": 2}
    for value in json_document["values"].values():
        for new in ("reach", "error", "shown"):
            del value["trace"][new]
    old = (
        json.dumps(
            json_document | {"seal": seal(json_document)}, indent=1, ensure_ascii=False
        ).encode()
        + b"\n"
    )
    decoded = decode(old, "c.json")
    assert encode(decoded) == old
    ranges = calibration_file.decode_calibration(decoded, model, "c.json").ranges
    assert ranges == outcome.calibration.ranges


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("tcc_calibration",), True, "`tcc_calibration` is true, but this tcc reads 3"),
        (("tcc_calibration",), 9, "`tcc_calibration` is 9, but this tcc reads 3"),
        (("values",), [], "values: expected `object`, got `array`"),
        (("data", "images"), 0, "data/images: expected `int` >= 1"),
        (("data", "digest"), "x", "data/digest"),
        (("extra",), 1, "the document: object contains unknown field `extra`"),
        (("method",), None, "method: expected `str`, got `null`"),
    ],
)
def test_files_that_are_no_calibration_are_refused(calibration_setup, path, to, message):
    assert_refused(
        "E0730",
        lambda: decode(change_document(calibration_setup[2], *path, to=to), "c.json"),
        message,
        "c.json",
    )


def test_edited_truncated_and_unrelated_files_are_refused(calibration_setup, tmp_path):
    data = encode(calibration_setup[2])
    scale = next(iter(calibration_setup[2].values.values())).scale
    edited = data.replace(repr(scale).encode(), repr(scale * 2).encode(), 1)
    assert_refused("E0730", lambda: decode(edited, "c.json"), "does not match its seal")
    for part in (b"", data[:1], data[:100], data[: len(data) // 2]):
        assert_refused("E0730", lambda part=part: decode(part, "c.json"), "it is not JSON")
    for number in (b"NaN", b"Infinity", b"1e999"):
        odd = data.replace(repr(scale).encode(), number, 1)
        assert_refused("E0730", lambda odd=odd: decode(odd, "c.json"), "is not a finite number")
    huge = data.replace(repr(scale).encode(), b"1" * 400, 1)
    assert_refused("E0730", lambda: decode(huge, "c.json"))
    assert_refused("E0730", lambda: decode(b"[" * 100_000, "c.json"))
    assert_refused(
        "E0603",
        lambda: calibration_document.read_document(tmp_path / "none.json"),
        "cannot read the calibration",
    )


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-40, 0.1])
def test_an_invalid_scale_is_refused(calibration_setup, scale):
    model, _, document = calibration_setup
    name = model.graph.nodes[-1].name
    decoded = decode(change_document(document, "values", name, "scale", to=scale), "c.json")
    assert_refused(
        "E0730",
        lambda: calibration_file.decode_calibration(decoded, model, "c.json"),
        f"the scale of `{name}`",
    )


def test_two_scales_in_one_group_are_refused(calibration_setup):
    model, _, document = calibration_setup
    decoded = decode(change_document(document, "values", "concat", "scale", to=0.5), "c.json")
    assert_refused(
        "E0730",
        lambda: calibration_file.decode_calibration(decoded, model, "c.json"),
        "they need the same scale",
    )


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!"])
def test_tensors_of_another_size_are_refused(calibration_setup, text):
    model, _, document = calibration_setup
    name = next(iter(document.rounded))
    decoded = decode(change_document(document, "rounded", name, "weight", to=text), "c.json")
    assert_refused(
        "E0730",
        lambda: calibration_file.decode_calibration(decoded, model, "c.json"),
        f"a tensor of `{name}`",
    )


def test_the_calibration_of_another_graph_is_refused(calibration_setup):
    _, _, document = calibration_setup
    other_model = make_lowered_model(build_gated(), INT8)
    assert_refused(
        "E0733",
        lambda: calibration_file.decode_calibration(document, other_model, "c.json"),
        "it has no scale for `",
    )
    model = calibration_setup[0]
    with_extra_value = replace(
        document, values={**document.values, "more": document.values["concat"]}
    )
    assert_refused(
        "E0733",
        lambda: calibration_file.decode_calibration(with_extra_value, model, "c.json"),
        "`more` is not in the graph",
    )
    without_layers = replace(document, rounded={"concat": next(iter(document.rounded.values()))})
    assert_refused(
        "E0733",
        lambda: calibration_file.decode_calibration(without_layers, model, "c.json"),
        "`concat` is not in the graph",
    )


def test_another_spec_and_other_weights_are_refused(calibration_setup):
    document = calibration_setup[2]
    another = replace(NETWORK, spec="2" * 64, params={"classes": "6"})
    assert_refused(
        "E0731", lambda: calibration_file.check(document, another, WEIGHTS, "c.json"),
        "another version of `net`: there classes=5, here classes=6",
    )  # fmt: skip
    renamed_network = replace(NETWORK, spec="2" * 64, name="vgg")
    assert_refused(
        "E0731",
        lambda: calibration_file.check(document, renamed_network, WEIGHTS, "c.json"),
        "it is for `net`",
    )
    random = WeightsOrigin("random", "3" * 64, None, 7, None)
    assert_refused(
        "E0732", lambda: calibration_file.check(document, NETWORK, random, "c.json"),
        "calibrated with w.safetensors (111111111111), building with random weights of seed 7"
        " (333333333333)",
    )  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(offset=st.integers(0, 10**9), byte=st.integers(0, 255))
def test_a_changed_byte_gives_a_located_error_or_no_change(calibration_setup, offset, byte):
    data = bytearray(encode(calibration_setup[2]))
    offset %= len(data)
    data[offset] = byte
    try:
        decoded = decode(bytes(data), "c.json")
    except UserError as error:
        decoded, files = None, {diagnostic.at.file for diagnostic in error.diagnostics}
    if decoded is None:
        assert files == {"c.json"}
    else:
        assert json_records.encode(decoded) == json_records.encode(
            decode(encode(calibration_setup[2]), "c.json")
        )
