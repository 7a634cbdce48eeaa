"""`tcc plot`: each kind from the command line and from Python, and refused arguments."""

import pytest
from PIL import Image

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from matplotlib.text import Text

from tcc import UserError, plot


def measure_image(path):
    with Image.open(path) as image:
        return image.size, len(image.convert("RGB").getcolors(1 << 24))


@pytest.mark.slow
def test_plots_of_images_and_classes(tcc, home, images, picture, built):
    pytest.importorskip("torch")
    for args in (
        ("confusion", "tiny.yaml", "--data", images),
        ("confusion", built, "--data", images),
        ("tsne", built, "--data", images),
        ("tsne", "tiny.yaml", "--data", images, "--layer", "relu"),
        ("gradcam", "tiny.yaml", picture, images, "--layer", "conv", "--class", "DOG"),
        ("cam", "tiny.yaml", picture),
    ):
        outcome = tcc("plot", *args, "-o", "out.png")
        assert (outcome.code, outcome.out) == (0, "out.png\n"), outcome.err
        assert "random" in outcome.err
        (width, height), colours = measure_image("out.png")
        assert width > 300
        assert height > 200
        assert colours > 20


@pytest.mark.slow
def test_plots_of_int8_models(tcc, home, images, built):
    calibrate = (
        "calibrate",
        "tiny.yaml",
        "--target",
        "ort",
        "--data",
        images,
        "--method",
        "minmax",
    )
    assert tcc(*calibrate, "-o", "c.json", "-q").code == 0
    network_args = ("tiny.yaml", "--calibration", "c.json")
    for args in (
        ("features", *network_args, "--data", images),
        ("filters", *network_args),
        ("weights", *network_args),
        ("errors", *network_args, "--data", images),
        ("scatter", "tiny.yaml", built, "--data", images),
    ):
        outcome = tcc("plot", *args, "-o", "out.svg", "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.document["output"] == "out.svg"
        assert (home / "out.svg").read_bytes().startswith(b"<?xml")
    plot.filters("tiny.yaml", "c.json", "from-python.svg")
    assert tcc("plot", "filters", *network_args, "-o", "typed.svg").code == 0
    assert (home / "from-python.svg").read_bytes() == (home / "typed.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("filters", "tiny.yaml", "-o", "x.gif"), "E1286", "plots can only be written as PNG or SVG"),
        (("gradcam", "tiny.yaml", "one.png", "--layer", "reul"), "E1281", "did you mean `relu`?"),
        (("gradcam", "tiny.yaml", "one.png", "--layer", "linear"), "E1281", "no feature maps"),
        (("gradcam", "tiny.yaml", "one.png", "--class", "ow"), "E1262", "did you mean `owl`?"),
        (("tsne", "tiny.yaml", "--data", "flat"), "E0714", "these images have no labels"),
        (("tsne", "tiny.yaml", "--data", "few"), "E1284", "and got 1"),
        (("filters", "tiny.yaml"), "E0616", "--data"),
        (("gradcam", "tiny.yaml", "none.png"), "E0701", "none.png"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(tcc, home, picture, arguments, code, message):
    for folder in ("flat", "few/cat"):
        (home / folder).mkdir(parents=True)
        Image.open(picture).save(home / folder / "a.png")
    outcome = tcc("plot", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"error[{code}]" in outcome.err
    assert message in outcome.err
    assert not list(home.glob("*.svg"))


def test_too_many_images_and_bundles_with_layers_are_refused(tcc, home, built, picture):
    (home / "many").mkdir()
    for number in range(65):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(home / f"many/{number}.png")
    outcome = tcc("plot", "gradcam", "tiny.yaml", "many")
    assert (outcome.code, "65 images are too many for one plot" in outcome.err) == (2, True)
    outcome = tcc("plot", "tsne", built, "--layer", "relu", "--data", "many")
    assert (outcome.code, "error[E1285]" in outcome.err) == (2, True)
    outcome = tcc("plot", "scatter", "tiny.yaml", built, "--seed", "5", "--data", "many")
    assert outcome.code == 2


def test_missing_plot_extra_is_reported(tcc, images, monkeypatch):
    from tcc.compiler.plots import drawing

    monkeypatch.setattr(drawing, "installed_version", lambda name: None)
    outcome = tcc("plot", "confusion", "tiny.yaml", "--data", images)
    assert outcome.code == 3
    assert "pip install 'tcc-compiler[plot]'" in outcome.err


@pytest.mark.filterwarnings(r"ignore:note\[E0719\]")  # SOURCE.md of the samples
def test_python_plots_use_zoo_weights(root, tmp_path):
    def draw_text(spec, data):
        figure = plot.confusion(spec, root / "zoo" / data, tmp_path / "cells.svg")
        return " ".join(text.get_text() for text in figure.findobj(Text))

    assert "random" not in draw_text("ddsnet-blood", "cells")
    assert "random" in draw_text("ddsnet", "samples")


@pytest.mark.parametrize("kind", ["gradcam", "cam"])
def test_overlays_accept_images_or_a_dataset(tcc, home, images, picture, kind):
    pytest.importorskip("torch")
    named_outcome = tcc("plot", kind, "tiny.yaml", picture, "--json")
    assert (named_outcome.document["images"], named_outcome.document["output"]) == (
        1,
        f"{kind}.png",
    ), named_outcome.err
    of_set = tcc("plot", kind, "tiny.yaml", "--data", images, "-o", "set.svg", "--json")
    assert of_set.document["images"] == 16, of_set.err
    few = tcc(
        "plot", kind, "tiny.yaml", "--data", images, "--images", 3, "-o", "typed.svg", "--json"
    )
    assert few.document["images"] == 3, few.err
    getattr(plot, kind)("tiny.yaml", out="python.svg", data=images, most=3)
    assert (home / "python.svg").read_bytes() == (home / "typed.svg").read_bytes()
    with pytest.raises(UserError, match="either `images` or `data`"):
        getattr(plot, kind)("tiny.yaml")


def test_features_accept_an_image_argument(tcc, home, images, picture):
    args = ("calibrate", "tiny.yaml", "--target", "ort", "--data", images, "--method", "minmax")
    assert tcc(*args, "-o", "c.json", "-q").code == 0
    calibrated = ("--calibration", "c.json")
    for number, args in enumerate([(picture,), ("--image", picture)]):
        outcome = tcc("plot", "features", "tiny.yaml", *args, *calibrated, "-o", f"{number}.svg")
        assert outcome.code == 0, outcome.err
    assert (home / "0.svg").read_bytes() == (home / "1.svg").read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("confusoin tiny.yaml", "there is no kind of plot `confusoin`"),
        ("confusoin tiny.yaml --top", "No such option"),
        ("confusion tiny.yaml one.png", "`tcc plot confusion` takes one network"),
        ("features tiny.yaml one.png one.png", "feature maps show one image"),
        ("scatter tiny.yaml --data set", "no bundles to draw"),
        ("curves", "no runs to draw"),
        ("cosines", "no calibrations to draw"),
        ("gradcam tiny.yaml", "this plot needs images, and none are given"),
    ],
)
def test_wrong_command_lines_are_refused(tcc, home, images, picture, line, message):
    outcome = tcc("plot", *line.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
