"""Calibration files: what is written is what is read, and nothing else is taken."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quant_sets import ready, tensors

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
ABOUT = calibration_file.Provenance("kl-cosine", "ax620", "drop_train_only", NETWORK, WEIGHTS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A ready model, its calibration and the document of it."""
    model = ready(build_dense(), INT8)
    folder = tmp_path_factory.mktemp("set")
    data = tensors(folder, model.graph.inputs[0].type.shape, 8)
    found = calibrate(model, data, KL_COSINE)
    factors = {model.graph.nodes[1].name: np.linspace(0.5, 2, 8, dtype=np.float32)}
    # The guard may take `minmax`, which has no weights of its own.
    rounded = round_nearest(model, found.calibration.ranges)
    whole = replace(
        found.calibration, rounded=rounded, factors=factors, in_float=frozenset({"concat"})
    )
    outcome = replace(found, calibration=whole)
    return model, outcome, calibration_file.build_document(ABOUT, model, outcome, data)


def refused(code, run, *words):
    with pytest.raises(UserError) as caught:
        run()
    (found,) = caught.value.diagnostics
    assert found.code == code
    for word in words:
        assert word in str(found)


def test_what_is_written_is_read_to_the_bit(made, tmp_path):
    model, outcome, whole = made
    path = tmp_path / "c.json"
    path.write_bytes(encode(whole))
    again = calibration_document.read_document(path)
    assert encode(again) == encode(whole)
    assert calibration_document.digest(again) == calibration_document.digest(whole)
    found, expected = (
        calibration_file.decode_calibration(again, model, "c.json"),
        outcome.calibration,
    )
    assert found.ranges == expected.ranges
    assert found.in_float == expected.in_float
    assert found.rounded.keys() == expected.rounded.keys() != set()
    for name, own in expected.rounded.items():
        for field in ("weight", "scale", "bias"):
            one, two = getattr(own, field), getattr(found.rounded[name], field)
            assert one.dtype == two.dtype
            assert np.array_equal(one, two)
    for name, factors in expected.factors.items():
        assert np.array_equal(found.factors[name], factors)
    assert (
        again.values[model.graph.nodes[1].name].trace == outcome.traces[model.graph.nodes[1].name]
    )
    calibration_file.check(again, NETWORK, WEIGHTS, "c.json")


def test_it_says_what_it_depends_on(made):
    plain = json.loads(encode(made[2]))
    assert plain["tcc_calibration"] == 3
    assert plain["data"]["images"] == 8
    assert plain["data"]["held_out"] == 2
    assert plain["model"]["params"] == {"classes": "5"}
    assert plain["weights"]["digest"] == "1" * 64
    assert plain["target"] == "ax620"
    assert set(plain["made_with"]) == {"tcc", "numpy", "onnxruntime"}
    assert set(plain["judged"]) >= {"minmax", "kl-cosine"}


def changed(whole, *path, to):
    """The file's bytes with one place changed and a seal that fits."""
    plain = json.loads(encode(whole))
    place = plain
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    plain["seal"] = seal(plain)
    return json.dumps(plain).encode()


def test_a_file_of_the_version_before_is_read_and_stays_as_it_is(made):
    model, outcome, whole = made
    plain = json_records.encode(whole) | {"tcc_calibration": 2}
    for value in plain["values"].values():
        for new in ("reach", "error", "shown"):
            del value["trace"][new]
    old = json.dumps(plain | {"seal": seal(plain)}, indent=1, ensure_ascii=False).encode() + b"\n"
    found = decode(old, "c.json")
    assert encode(found) == old
    ranges = calibration_file.decode_calibration(found, model, "c.json").ranges
    assert ranges == outcome.calibration.ranges


@pytest.mark.parametrize(
    ("path", "to", "words"),
    [
        (("tcc_calibration",), True, "`tcc_calibration` is true, this tcc reads 3"),
        (("tcc_calibration",), 9, "`tcc_calibration` is 9, this tcc reads 3"),
        (("values",), [], "values: expected `object`, got `array`"),
        (("data", "images"), 0, "data/images: expected `int` >= 1"),
        (("data", "digest"), "x", "data/digest"),
        (("extra",), 1, "the whole: object contains unknown field `extra`"),
        (("method",), None, "method: expected `str`, got `null`"),
    ],
)
def test_what_is_no_calibration_is_refused(made, path, to, words):
    refused("E0730", lambda: decode(changed(made[2], *path, to=to), "c.json"), words, "c.json")


def test_edited_truncated_and_other_files_are_refused(made, tmp_path):
    data = encode(made[2])
    scale = next(iter(made[2].values.values())).scale
    edited = data.replace(repr(scale).encode(), repr(scale * 2).encode(), 1)
    refused("E0730", lambda: decode(edited, "c.json"), "does not match its seal")
    for part in (b"", data[:1], data[:100], data[: len(data) // 2]):
        refused("E0730", lambda part=part: decode(part, "c.json"), "it is not JSON")
    for number in (b"NaN", b"Infinity", b"1e999"):
        odd = data.replace(repr(scale).encode(), number, 1)
        refused("E0730", lambda odd=odd: decode(odd, "c.json"), "which is no number")
    huge = data.replace(repr(scale).encode(), b"1" * 400, 1)
    refused("E0730", lambda: decode(huge, "c.json"))
    refused("E0730", lambda: decode(b"[" * 100_000, "c.json"))
    refused(
        "E0603",
        lambda: calibration_document.read_document(tmp_path / "none.json"),
        "cannot read the calibration",
    )


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-40, 0.1])
def test_a_scale_that_is_no_normal_float32_is_refused(made, scale):
    model, _, whole = made
    name = model.graph.nodes[-1].name
    found = decode(changed(whole, "values", name, "scale", to=scale), "c.json")
    refused(
        "E0730",
        lambda: calibration_file.decode_calibration(found, model, "c.json"),
        f"the scale of `{name}`",
    )


def test_members_of_a_group_with_two_scales_are_refused(made):
    model, _, whole = made
    found = decode(changed(whole, "values", "concat", "scale", to=0.5), "c.json")
    refused(
        "E0730",
        lambda: calibration_file.decode_calibration(found, model, "c.json"),
        "need one scale",
    )


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!"])
def test_tensors_of_another_size_are_refused(made, text):
    model, _, whole = made
    name = next(iter(whole.rounded))
    found = decode(changed(whole, "rounded", name, "weight", to=text), "c.json")
    refused(
        "E0730",
        lambda: calibration_file.decode_calibration(found, model, "c.json"),
        f"tensors of `{name}`",
    )


def test_the_calibration_of_another_graph_is_refused(made):
    _, _, whole = made
    other = ready(build_gated(), INT8)
    refused(
        "E0733", lambda: calibration_file.decode_calibration(whole, other, "c.json"), "it lacks `"
    )
    model = made[0]
    spare = replace(whole, values={**whole.values, "more": whole.values["concat"]})
    refused(
        "E0733",
        lambda: calibration_file.decode_calibration(spare, model, "c.json"),
        "`more` is not in the graph",
    )
    odd = replace(whole, rounded={"concat": next(iter(whole.rounded.values()))})
    refused(
        "E0733",
        lambda: calibration_file.decode_calibration(odd, model, "c.json"),
        "`concat` is not in the graph",
    )


def test_another_spec_and_other_weights_are_refused(made):
    whole = made[2]
    another = replace(NETWORK, spec="2" * 64, params={"classes": "6"})
    refused(
        "E0731", lambda: calibration_file.check(whole, another, WEIGHTS, "c.json"),
        "another version of `net`, with classes=5 where this one has 6",
    )  # fmt: skip
    named = replace(NETWORK, spec="2" * 64, name="vgg")
    refused(
        "E0731", lambda: calibration_file.check(whole, named, WEIGHTS, "c.json"), "it is for `net`"
    )
    random = WeightsOrigin("random", "3" * 64, None, 7, None)
    refused(
        "E0732", lambda: calibration_file.check(whole, NETWORK, random, "c.json"),
        "it is for w.safetensors (111111111111), these are random ones of seed 7 (333333333333)",
    )  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(place=st.integers(0, 10**9), byte=st.integers(0, 255))
def test_a_changed_byte_is_a_located_error_or_no_change(made, place, byte):
    data = bytearray(encode(made[2]))
    place %= len(data)
    data[place] = byte
    try:
        found = decode(bytes(data), "c.json")
    except UserError as error:
        found, files = None, {each.at.file for each in error.diagnostics}
    if found is None:
        assert files == {"c.json"}
    else:
        assert json_records.encode(found) == json_records.encode(decode(encode(made[2]), "c.json"))
