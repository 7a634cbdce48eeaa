"""`tcc slide eval`: results of slides against what was drawn on them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from drawn_slides import build_colour_bundle, draw_pixels, write
from PIL import Image
from stored_slides import BUNDLE, write_result

pytest.importorskip("openslide", reason="needs the extra `slides`")
SPAN = 100
SIZE = (2000, 1000)
TUMOUR = (500, 300, 1000, 700)
"""Left, top, right, bottom: patches of columns 5 to 9 and rows 3 to 6."""
INSIDE = {(row, column) for row in range(3, 7) for column in range(5, 10)}
EVERY = {(row, column) for row in range(10) for column in range(20)}


def make_area(name, x_min, y_min, x_max, y_max):
    ring = [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max], [x_min, y_min]]
    properties = {"classification": {"name": name}}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


@pytest.fixture
def truth(home):
    """A slide with a tumour, and one without."""
    folder = home / "truth"
    folder.mkdir()
    (folder / "a.geojson").write_text(json.dumps([make_area("Tumor", *TUMOUR)]))
    (folder / "b.geojson").write_text("[]")
    return folder


@pytest.fixture
def results(home):
    """Of `a` 18 of 20 patches are found, and one beside them; of `b` two are taken for tumour."""
    likely = dict.fromkeys(EVERY, 0.1) | dict.fromkeys(INSIDE, 0.9)
    likely |= {(3, 5): 0.2, (3, 6): 0.3, (9, 19): 0.8}
    write_result(home / "results/a", "a.tif", SIZE, SPAN, likely)
    probabilities = dict.fromkeys(EVERY, 0.1) | {(0, 0): 0.7, (9, 19): 0.6}
    write_result(home / "results/b", "b.tif", SIZE, SPAN, probabilities)
    return ["results/a", "results/b"]


@pytest.fixture
def judged(tcc):
    def evaluate(*args):
        outcome = tcc("slide", "eval", *args, "--json")
        assert outcome.code == 0, outcome.err
        return outcome.document

    return evaluate


def test_patches_are_judged_as_eval_judges_images(judged, truth, results):
    patches = judged(*results, "--truth", "truth")["patches"]
    assert patches["confusion"] == [[377, 3], [2, 18]]
    assert patches["accuracy"] == 395 / 400
    normal, tumour = patches["classes"]
    assert (tumour["label"], tumour["sensitivity"], tumour["specificity"]) == (
        "tumour",
        0.9,
        377 / 380,
    )
    assert tumour["precision"] == 18 / 21
    assert tumour["intervals"]["sensitivity"]["low"] == pytest.approx(0.68302, abs=1e-5)
    assert patches["weighted"]["recall"] == pytest.approx((380 * 377 / 380 + 20 * 0.9) / 400)
    assert patches["macro"]["recall"] == pytest.approx((377 / 380 + 0.9) / 2)
    # Of 20 x 380 pairs those of 0.2 and 0.3 lose to the three, and all others are won.
    assert tumour["auc"] == normal["auc"] == pytest.approx(1 - 2 * 3 / 7600)
    assert patches["mixed"] == patches["damaged"] == 0


def test_slides_and_lesions(judged, truth, results):
    document = judged(*results, "--truth", "truth")
    assert document["slides"]["auc"] == 1
    # One slide of each kind says next to nothing.
    assert document["slides"]["interval"] == {"low": pytest.approx(0.2065, abs=1e-4), "high": 1}
    lesions = document["lesions"]
    assert lesions["rates"] == [0.25, 0.5, 1, 2, 4, 8]
    assert (lesions["lesions"], lesions["short"]) == (1, 0)
    assert lesions["all_slides"]["sensitivities"] == [1] * 6
    assert lesions["slides_without_tumour"]["mean"] == 1
    first_slide, second_slide = document["each"]
    (lesion,) = first_slide["lesions"]
    assert (lesion["x"], lesion["y"], lesion["probability"]) == (750, 500, 0.9)
    assert first_slide["false_positives"] == [{"x": 1950, "y": 950, "probability": 0.8}]
    assert [spot["probability"] for spot in second_slide["false_positives"]] == [0.7, 0.6]


def test_what_is_likelier_elsewhere_costs_sensitivity(judged, truth, results, home):
    likely = dict.fromkeys(EVERY, 0.1) | {(0, 0): 0.99, (5, 7): 0.6, (9, 19): 0.95}
    write_result(home / "worse/a", "a.tif", SIZE, SPAN, likely)
    document = judged("worse/a", "results/b", "--truth", "truth")
    # False ones of 0.99, 0.95, 0.7 come before the lesion and 0.6 with it: from (3/2, 0) to (2, 1).
    assert document["lesions"]["all_slides"]["sensitivities"] == [0, 0, 0, 1, 1, 1]
    # On the slide without tumour 0.7 alone comes before it: from (1, 0) to (2, 1).
    assert document["lesions"]["slides_without_tumour"]["sensitivities"] == [0, 0, 0, 1, 1, 1]
    # 0.99 of `a` against 0.7 of `b`.
    assert document["slides"]["auc"] == 1


def test_the_table(tcc, truth, results):
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 0, outcome.err
    for line in (
        "patches: accuracy 98.75%, 395 of 400 patches (95 % confidence interval",
        "the intervals assume independent patches; patches of one slide are not independent",
        "slides: 2, 1 with tumour; ROC-AUC 1.0000",
        "lesions: 1\n",
        "false positives per slide  0.25    0.5",
        "a            1      1                1  0.9000",
        "b            0      0                2  0.7000",
    ):
        assert line in outcome.out


def write_mask_pyramid(path, value=255, size=SIZE, around=0):
    """Write a mask as large as a slide, with levels, as CAMELYON's are."""
    x_min, y_min, x_max, y_max = TUMOUR
    mask = np.zeros(size[::-1], np.uint8)
    mask[y_min - 64 : y_max + 64] = around
    mask[y_min:y_max, x_min:x_max] = value
    return write(path, mask, mpp=None, levels=4)


@pytest.mark.parametrize("ending", ["xml", "png", "tif"])
def test_truth_of_other_kinds(judged, truth, results, ending):
    x_min, y_min, x_max, y_max = TUMOUR
    expected_document = judged(*results, "--truth", "truth")
    (truth / "a.geojson").unlink()
    if ending == "tif":
        write_mask_pyramid(truth / "a_mask.tif")
    elif ending == "png":
        mask = np.zeros((250, 500), np.uint8)  # squares of four pixels
        mask[y_min // 4 : y_max // 4, x_min // 4 : x_max // 4] = 255
        Image.fromarray(mask).save(truth / "a.png")
    else:
        points = ((x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max))
        text = "".join(
            f'<Coordinate Order="{n}" X="{x}" Y="{y}"/>' for n, (x, y) in enumerate(points)
        )
        (truth / "a.xml").write_text(
            '<ASAP_Annotations><Annotations><Annotation Type="Polygon" PartOfGroup="_0"><Coordinates>'
            f"{text}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
        )
    assert judged(*results, "--truth", "truth") == expected_document


def test_values_of_masks_are_not_guessed(tcc, judged, truth, results):
    expected_document = judged(*results, "--truth", "truth")
    (truth / "a.geojson").unlink()
    write_mask_pyramid(truth / "a_mask.tif", 1)
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 2
    assert "error[E1315]: it is unknown whether the value 1 of this mask is tumour" in outcome.err
    assert "use --tumour 1 if it is tumour, or --other 1" in outcome.err
    assert judged(*results, "--truth", "truth", "--tumour", "1") == expected_document
    assert judged(*results, "--truth", "truth", "--other", "1")["slides"]["tumour"] == 0
    write_mask_pyramid(truth / "a_mask.tif", 2, around=1)  # background, tissue, tumour
    args = ("--truth", "truth", "--tumour", "2", "--other", "1")
    assert judged(*results, *args) == expected_document


def test_a_mask_of_another_slide_and_a_slide(tcc, truth, results, home):
    write_mask_pyramid(truth / "a_mask.tif")
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert "error[E1314]: a.geojson and a_mask.tif are both for slide a" in outcome.err
    (truth / "a.geojson").unlink()
    write_mask_pyramid(truth / "a_mask.tif", size=(2000, 999))
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert "error[E1307]: this mask of 2000 x 999 pixels does not match this slide" in outcome.err
    write(truth / "a_mask.tif", draw_pixels(*SIZE))
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert "error[E1307]" in outcome.err
    assert "this file is in colour" in outcome.err
    (truth / "a_mask.tif").write_bytes(b"II")
    assert tcc("slide", "eval", *results, "--truth", "truth").code == 2


def test_a_mask_of_another_depth_is_no_slide_of_it(tcc, truth, results):
    import tifffile

    (truth / "a.geojson").unlink()
    write(truth / "a_mask.tif", np.zeros(SIZE[::-1], np.uint16), mpp=None)
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 2
    assert "error[E1303]: this mask has samples of 16 bits, but only 8 bits" in outcome.err
    with tifffile.TiffWriter(truth / "a_mask.tif") as file:
        file.write(np.zeros(SIZE[::-1], bool), tile=(64, 64), metadata=None)
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 2
    assert "error[E1303]: this mask has samples of 1 bit, but only 8 bits" in outcome.err
    assert "convert it to 8 bits" in outcome.err
    assert "slide's" not in outcome.err
    assert "networks" not in outcome.err


def test_a_patch_is_tumour_where_half_of_it_is(judged, truth, home):
    (truth / "a.geojson").write_text(json.dumps([make_area("Tumor", 0, 0, 152, 100)]))
    (truth / "b.geojson").unlink()
    write_result(home / "results/a", "a.tif", SIZE, SPAN, {(0, 0): 0.9, (0, 1): 0.9})
    patches = judged("results/a", "--truth", "truth")["patches"]
    assert patches["confusion"] == [[0, 0], [0, 2]]
    assert patches["mixed"] == 1
    (truth / "a.geojson").write_text(json.dumps([make_area("Tumor", 0, 0, 148, 100)]))
    assert judged("results/a", "--truth", "truth")["patches"]["confusion"] == [[0, 1], [0, 1]]


def test_what_is_empty_is_said(tcc, truth, results, home):
    outcome = tcc("slide", "eval", "results/b", "--truth", "truth", "--subset", "--json")
    document = outcome.document
    assert document["patches"]["classes"][1]["sensitivity"] is None
    assert document["patches"]["classes"][1]["auc"] is None
    assert document["slides"]["auc"] is None
    assert document["lesions"]["all_slides"] is None
    outcome = tcc("slide", "eval", "results/b", "--truth", "truth", "--subset")
    assert (
        "slides: 1, 0 with tumour: all slides are of one kind, so there is no ROC curve"
        in outcome.out
    )
    assert "no lesion is counted, so there is no sensitivity" in outcome.out
    # A lesion that nothing was detected in, and a slide on which nothing was classified.
    outcome = tcc("slide", "eval", *results, "--truth", "truth", "--least", 1, "--json")
    assert outcome.document["lesions"]["all_slides"]["sensitivities"] == [0] * 6
    write_result(home / "none/a", "a.tif", SIZE, SPAN, {})
    outcome = tcc("slide", "eval", "none/a", "--truth", "truth", "--subset", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["patches"]["accuracy"] is None
    assert outcome.document["each"][0]["probability"] == 0
    assert outcome.document["lesions"]["all_slides"]["mean"] == 0
    assert "no patch" in tcc("slide", "eval", "none/a", "--truth", "truth", "--subset").out


def test_short_lesions_are_left_out_aloud(tcc, judged, truth, results):
    (truth / "a.geojson").write_text(json.dumps([make_area("Tumor", 500, 300, 600, 400)]))
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert "lesions: 0; 1 shorter than 275 um are not counted" in outcome.out
    lesions = judged(*results, "--truth", "truth", "--shortest", 100)["lesions"]
    assert (lesions["lesions"], lesions["short"]) == (1, 0)


def test_slides_without_truth(tcc, judged, truth, results):
    expected_document = judged(*results, "--truth", "truth")
    (truth / "b.geojson").unlink()
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 2
    assert "error[E1314]: this folder has no ground truth for slide b" in outcome.err
    assert judged(*results, "--truth", "truth", "--normal") == expected_document


@pytest.mark.parametrize(
    ("name", "text", "code", "said"),
    [
        ("c.geojson", "[]", "E1321", "slides with ground truth have no result: c"),
        ("a.xml", "", "E1314", "a.geojson and a.xml are both for slide a"),
        (
            "a.geojson",
            json.dumps([make_area("Tumor", 0, 0, 2100, 90)]),
            "E1320",
            "has a corner at column 2100, row 0",
        ),
        (
            "a.geojson",
            json.dumps([make_area("Lesion", 0, 0, 90, 90)]),
            "E1315",
            "whether class `Lesion`",
        ),
        ("a.geojson", "{", "E1306", "a.geojson"),
    ],
    ids=str,
)
def test_truth_that_does_not_fit(tcc, truth, results, name, text, code, said):
    (truth / name).write_text(text)
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 2
    assert f"error[{code}]" in outcome.err
    assert said in outcome.err


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((251, 500), np.uint8), "does not match this slide"),
        (np.full((1000, 2000), 190, np.uint8), "only black and white pixels"),
        (np.zeros((1000, 2000, 3), np.uint8) + np.array([255, 0, 7], np.uint8), "black and white"),
    ],
    ids=["other size", "grey", "the slide itself"],
)
def test_masks_that_are_none(tcc, truth, results, pixels, said):
    (truth / "a.geojson").unlink()
    Image.fromarray(pixels).save(truth / "a.png")
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 2
    assert "error[E1307]" in outcome.err
    assert said in outcome.err


@pytest.mark.parametrize(
    "more",
    [
        {"bundle": BUNDLE | {"precision": "int8"}},
        {"threshold": 0.7},
        {"mpp": 0.5},
    ],
    ids=["bundle", "threshold", "resolution"],
)
def test_results_that_cannot_be_judged_together(tcc, truth, results, home, more):
    write_result(home / "more/b", "b.tif", SIZE, SPAN, {(0, 0): 0.5}, **more)
    outcome = tcc("slide", "eval", "results/a", "more/b", "--truth", "truth")
    assert outcome.code == 2
    assert "error[E1322]: these results have different bundles" in outcome.err


def test_a_slide_that_is_there_twice(tcc, truth, results, home):
    write_result(home / "more/other", "a.svs", SIZE, SPAN, {(0, 0): 0.5})
    outcome = tcc("slide", "eval", "results/a", "more/other", "--truth", "truth", "--subset")
    assert outcome.code == 2
    assert "error[E1322]: slide a is given twice" in outcome.err


def test_no_folder_of_truth(tcc, results):
    outcome = tcc("slide", "eval", *results, "--truth", "nowhere")
    assert outcome.code == 2
    assert "error[E1314]: cannot read this folder of ground truth" in outcome.err


@pytest.mark.slow
def test_a_drawn_slide_is_found_to_the_patch(tcc, judged, home, root):
    """The tool's slide has two tumours of whole tiles at this size, on which patches lie."""
    (home / "slides").mkdir()
    tool = root / "tools/draw_slide.py"
    subprocess.run([sys.executable, tool, "slides/large.tif", "--side", "10000"], check=True)
    bundle, slide_path = build_colour_bundle(tcc, home), "slides/large.tif"
    outcome = tcc(
        "slide", "run", bundle, slide_path, "--at", 4, "--patch", 32, "--rule", "wide", "-o", "out"
    )
    assert outcome.code == 0, outcome.err
    document = judged("out/large", "--truth", "slides")
    assert document["patches"]["accuracy"] == 1
    assert document["patches"]["mixed"] == 0
    assert document["patches"]["classes"][1]["auc"] == 1
    assert document["patches"]["classes"][1]["support"] == 32
    assert (document["lesions"]["lesions"], document["lesions"]["short"]) == (2, 0)
    assert document["lesions"]["all_slides"]["sensitivities"] == [1] * 6
    # Truth of a slide that was turned round: nothing of it is where the tumour is.
    text = json.loads((home / "slides/large.geojson").read_text())
    for feature in text["features"]:
        for ring in feature["geometry"]["coordinates"]:
            ring[:] = [[10000 - x, y] for x, y in ring]
    (home / "slides/large.geojson").write_text(json.dumps(text))
    document = judged("out/large", "--truth", "slides")
    assert document["patches"]["classes"][1]["sensitivity"] < 0.5
    assert document["lesions"]["all_slides"]["mean"] < 0.7
