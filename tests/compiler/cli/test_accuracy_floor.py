"""Accuracy floors apply to bounds for unseen images, and need enough different images."""

import json

import numpy as np
import pytest
from PIL import Image

import tcc as package
from tcc import BelowFloor, UserError

SPEC = """\
tcc: 1
name: net
input:
  image:
    shape: [3, 12, 12]
    preprocess: {{resize: {{size: [12, 12], mode: stretch}}}}
graph:
  - conv: {{filters: 6, kernel: 3, padding: same}}
  - relu
  - conv: {{filters: 6, kernel: 3, padding: same}}
  - relu
  - global_avg_pool
  - flatten
  - linear: {{units: {units}}}
output:
  found: {{activation: {activation}}}
"""
BUILD = ("build", "net.yaml", "--seed", 1, "--target", "onnxruntime", "--precision", "int8")
FOLDER = "build/net-onnxruntime-int8"


@pytest.fixture
def spec(home):
    """A network with classes."""
    (home / "net.yaml").write_text(SPEC.format(units=4, activation="softmax"))
    return home / "net.yaml"


@pytest.fixture
def write_images(home):
    """Write images that differ in brightness and colour, with some copies."""

    def write(count, copies=0, seed=1):
        rng = np.random.default_rng(seed)
        folder = home / f"images-{count}-{copies}"
        folder.mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (12, 12, 3)) * rng.uniform(0.2, 1, (1, 1, 3))
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / f"{number}.png")
            if number < copies:
                image.save(folder / f"{number}.bmp")
        return folder

    return write


def read_manifest(home):
    return json.loads((home / FOLDER / "manifest.json").read_text())


@pytest.mark.usefixtures("spec")
@pytest.mark.parametrize(("count", "copies"), [(1, 0), (15, 0), (12, 12)])
def test_too_few_images_for_a_floor_are_refused(tcc, home, write_images, count, copies):
    data = write_images(count, copies)
    outcome = tcc(*BUILD, "--data", data, "--json")
    assert outcome.code == outcome.document["exit"] == 4
    assert "error[E0722]: the accuracy floor needs at least 16 different images" in outcome.err
    assert f"{count} {'is' if count == 1 else 'are'} different" in outcome.err
    assert not (home / "build").exists()
    outcome = tcc(*BUILD, "--data", data, "--allow-few")
    assert outcome.code == 0, outcome.err
    assert "warning[W0671]: the accuracy of the int8 model was measured on fewer" in outcome.err
    manifest_json = read_manifest(home)
    assert [warning["code"] for warning in manifest_json["warnings"]] == ["W0671"]
    assert manifest_json["calibration"]["measured"]["images"] == count
    assert "W0671" in (home / FOLDER / "model-card.md").read_text()


@pytest.mark.usefixtures("spec")
def test_sixteen_images_are_enough(tcc, home, write_images):
    outcome = tcc(*BUILD, "--data", write_images(16))
    assert outcome.code == 0, outcome.err
    assert "W0671" not in outcome.err
    assert "warnings" not in read_manifest(home)
    assert read_manifest(home)["calibration"]["measured"]["images"] == 16


@pytest.mark.usefixtures("spec")
def test_copies_of_images_count_once(tcc, home, write_images):
    """Images that are not those of the calibration are also counted by their pixels."""
    assert tcc("calibrate", "net.yaml", "--seed", 1, "--data", write_images(24), "-o", "c.json",
               "-q").code == 0  # fmt: skip
    args = (*BUILD, "--calibration", "c.json", "--data")
    assert tcc(*args, write_images(10, 10, seed=2)).code == 4
    assert tcc(*args, write_images(16, 0, seed=2)).code == 0


@pytest.mark.usefixtures("spec")
def test_calibration_file_from_few_images_is_refused(tcc, home, write_images):
    args = ("calibrate", "net.yaml", "--seed", 1, "--data", write_images(8), "-o", "c.json")
    outcome = tcc(*args)
    assert outcome.code == 0
    assert "`build` will refuse this int8 model: only 8 different images" in outcome.err
    outcome = tcc(*BUILD, "--calibration", "c.json")
    assert outcome.code == 4
    assert "error[E0722]" in outcome.err
    outcome = tcc(*BUILD, "--calibration", "c.json", "--allow-few")
    assert outcome.code == 0, outcome.err
    assert "warning[W0671]" in outcome.err


@pytest.mark.usefixtures("spec")
def test_python_refuses_and_warns_like_the_command(home, write_images):
    options = {"seed": 1, "precision": "int8", "data": write_images(12)}
    with pytest.warns(package.CalibrationWarning), pytest.raises(package.UserError) as error_info:
        package.build("net.yaml", "onnxruntime", **options)
    assert [diagnostic.code for diagnostic in error_info.value.diagnostics] == ["E0722"]
    with pytest.warns(package.CalibrationWarning) as record:
        built = package.build("net.yaml", "onnxruntime", allow_few=True, **options)
    assert "W0671: the accuracy of the int8 model was measured on fewer than" in str(
        record[-1].message
    )
    assert [diagnostic.code for diagnostic in built.manifest.warnings] == ["W0671"]


@pytest.mark.parametrize("method", ["minmax", pytest.param("best", marks=pytest.mark.slow)])
def test_floor_applies_to_the_bound_not_the_measured_value(tcc, home, write_images, method):
    """A floor between the measured value and the bound of the calibration refuses the build."""
    (home / "net.yaml").write_text(SPEC.format(units=4, activation="softmax"))
    args = (*BUILD, "--data", write_images(32), "--method", method)
    assert tcc(*args, "--floor", "min_cosine=0").code == 0
    measurements = read_manifest(home)["calibration"]["measured"]
    measured, bound = (measurements[key]["found"] for key in ("outputs", "bounds"))
    assert bound["cosine"] < measured["cosine"]
    assert bound["correlation"] < measured["correlation"]
    assert bound["error"] > measured["error"]
    assert bound["images"] == 32
    for option, low, high in (
        ("min_cosine", bound["cosine"], measured["cosine"]),
        ("min_correlation", bound["correlation"], measured["correlation"]),
        ("max_error", bound["error"], measured["error"]),
    ):
        floor = (low + high) / 2
        outcome = tcc(*args, "--floor", f"{option}={floor}")
        assert outcome.code == 4, option
        assert "(95 % bound, estimated from 32 images)" in outcome.err
        reached_bound = low - 1e-9 if option != "max_error" else low + 1e-9
        assert tcc(*args, "--floor", f"{option}={reached_bound}", "-q").code == 0, option


def test_model_below_the_bounds_of_its_calibration_is_refused(tcc, home):
    """One output with random weights and `minmax`, over images that are nearly equal."""
    (home / "net.yaml").write_text(SPEC.format(units=1, activation="sigmoid"))
    images = np.random.default_rng(3).integers(100, 110, (24, 12, 12, 3)).astype(np.uint8)
    np.savez(home / "odd.npz", images=images)
    args = ("build", "net.yaml", "--seed", 3, *BUILD[4:], "--data", "odd.npz", "--json")
    outcome = tcc(*args, "--method", "minmax")
    assert outcome.code == 4, outcome.err
    assert outcome.document["quality"]["found"]["correlation"] > 0.5  # six images pass
    assert "with the fp32 model on unseen images may be as low as -1.000 (" in outcome.err
    assert not (home / "build").exists()


@pytest.mark.usefixtures("spec")
class TestMixed:
    """Layers that stay in float: some images choose them and others evaluate, until the floor is
    reached.
    """

    def test_mixed_reaches_any_floor_below_one(self, tcc, home, write_images):
        data = write_images(24)
        outcome = tcc(*BUILD, "--data", data, "--floor", f"min_cosine={1 - 1e-10}", "--mixed")
        assert outcome.code == 0, outcome.err
        calibration = read_manifest(home)["calibration"]
        assert calibration["measured"]["bounds"]["found"]["cosine"] >= 1 - 1e-10
        assert calibration["in_float"]

    def test_more_layers_than_single_trials(self, tcc, home, write_images, monkeypatch):
        from tcc.compiler.quant.program import floor_program

        monkeypatch.setattr(floor_program, "MAX_CANDIDATES", 1)
        args = ("--floor", f"min_cosine={1 - 1e-10}", "--mixed", "--no-cache")
        outcome = tcc(*BUILD, "--data", write_images(24), *args)
        assert outcome.code == 0, outcome.err

    def test_error_does_not_advise_an_option_in_use(self, tcc, write_images, monkeypatch):
        from tcc.compiler.quant.program import floor_program

        every = floor_program.sort_noisy_layers
        monkeypatch.setattr(floor_program, "sort_noisy_layers", lambda *args: every(*args)[:1])
        data = write_images(24)
        outcome = tcc(*BUILD, "--data", data, "--floor", "max_error=0", "--mixed")
        assert outcome.code == 4
        assert "--mixed" not in outcome.err
        assert "use `--mixed`" in tcc(*BUILD, "--data", data, "--floor", "max_error=0").err

    def test_images_for_choosing_layers_are_not_used_for_evaluation(self, tcc, home, write_images):
        outcome = tcc(
            *BUILD, "--data", write_images(24), "--floor", f"min_cosine={1 - 1e-10}", "--mixed"
        )
        assert outcome.code == 0, outcome.err
        measured = read_manifest(home)["calibration"]["measured"]
        assert measured["outputs"]["found"]["images"] == 16
        assert measured["bounds"]["found"]["images"] == 16
        assert "other images chose the layers" in measured["where"]

    def test_mixed_needs_images_for_choosing_and_evaluation(self, tcc, write_images):
        outcome = tcc(*BUILD, "--data", write_images(18), "--mixed")
        assert outcome.code == 4
        assert "the accuracy floor needs at least 20 different images" in outcome.err
        assert "`--mixed` needs 4 to choose layers, and 16 others for evaluation" in outcome.err

    def test_mixed_without_images_is_refused(self, tcc, write_images):
        data = write_images(24)
        assert tcc("calibrate", "net.yaml", "--seed", 1, "--data", data, "-o", "c.json",
                   "-q").code == 0  # fmt: skip
        outcome = tcc(*BUILD, "--calibration", "c.json", "--mixed")
        assert outcome.code == 2
        assert (
            "error[E0601]: `--mixed` has no effect: no images measure this int8 model"
            in outcome.err
        )


class TestStatedFloors:
    """`--floor` accepts the names of `accuracy:`, one per option or in a file."""

    @pytest.fixture
    def build(self, tcc, home, write_images):
        (home / "net.yaml").write_text(SPEC.format(units=4, activation="softmax"))
        args = (*BUILD, "--data", write_images(24), "--method", "minmax")
        return lambda *floors: tcc(*args, *(w for floor in floors for w in ("--floor", floor)))

    def test_file_with_several_floors(self, build, home):
        (home / "lax.yaml").write_text("min_cosine: 0\nmin_correlation: 0\nmax_error: 1e3\n")
        (home / "strict.json").write_text('{"max_error": 1e-12}')
        assert build("lax.yaml").code == 0
        outcome = build("strict.json")
        assert outcome.code == 4
        assert "--floor NAME=VALUE" in outcome.err

    @pytest.mark.parametrize(
        ("floors", "message"),
        [
            (["cosine=0.9"], "there is no floor `cosine`"),
            (["min_cosine=98"], "`min_cosine` must be a number from 0 to 1"),
            (["min_cosine=nan"], "`min_cosine` must be a number from 0 to 1"),
            (["max_error=inf"], "`max_error` must be a number that is not negative"),
            (["max_error="], "`max_error` must be a number that is not negative"),
            (["min_cosine=0.9", "min_cosine=0.8"], "`min_cosine` is stated twice"),
            (["lax.yaml", "max_drop=1"], "`max_drop` is stated twice"),
            (["odd.yaml"], "there is no floor `cosine`"),
            (["list.yaml"], "floors must be a mapping of names to numbers"),
            (["true.yaml"], "`min_cosine` must be a number from 0 to 1"),
            (["none.yaml"], "`none.yaml` is neither `name=value` nor a file"),
        ],
    )
    def test_invalid_floors_are_refused(self, build, home, floors, message):
        for name, text in (
            ("lax", "max_drop: 1"), ("odd", "cosine: 1"), ("list", "[0.9]"),
            ("true", "min_cosine: true"),
        ):  # fmt: skip
            (home / f"{name}.yaml").write_text(text)
        outcome = build(*floors)
        assert outcome.code == 2
        assert f"error[E0790]: {message}\n" in outcome.err

    @pytest.mark.filterwarnings("ignore::tcc.CalibrationWarning")
    def test_python_accepts_floors_by_name(self, home, write_images):
        (home / "net.yaml").write_text(SPEC.format(units=4, activation="softmax"))
        options = {"precision": "int8", "data": write_images(24), "method": "minmax"}
        with pytest.raises(BelowFloor):
            package.build("net.yaml", "onnxruntime", **options, floors={"max_error": 1e-12})
        with pytest.raises(UserError, match="no floor `cosine`"):
            package.build("net.yaml", "onnxruntime", **options, floors={"cosine": 0.5})
        with pytest.raises(BelowFloor):
            package.lower("net.yaml", "onnxruntime", **options, floors={"max_error": 1e-12})

    def test_old_option_reports_the_new_one(self, tcc, build):
        outcome = tcc(*BUILD, "--max-drop=0.1")
        assert outcome.code == 2
        assert "`--max-drop` is now `--floor max_drop=VALUE`" in outcome.err
