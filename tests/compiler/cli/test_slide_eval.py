"""`tcc slide eval`: slide results against annotations."""

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
"""Left, top, right, bottom: the patches of columns 5 to 9 and rows 3 to 6."""
TUMOUR_PATCHES = {(row, column) for row in range(3, 7) for column in range(5, 10)}
ALL_PATCHES = {(row, column) for row in range(10) for column in range(20)}


def make_area(name, x_min, y_min, x_max, y_max):
    ring = [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max], [x_min, y_min]]
    properties = {"classification": {"name": name}}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


@pytest.fixture
def truth(home):
    """Annotations of a slide with a tumour and of one without."""
    folder = home / "truth"
    folder.mkdir()
    (folder / "a.geojson").write_text(json.dumps([make_area("Tumor", *TUMOUR)]))
    (folder / "b.geojson").write_text("[]")
    return folder


@pytest.fixture
def results(home):
    """Results: on `a`, 18 of 20 tumour patches and one false positive; on `b`, two false
    positives.
    """
    likely = dict.fromkeys(ALL_PATCHES, 0.1) | dict.fromkeys(TUMOUR_PATCHES, 0.9)
    likely |= {(3, 5): 0.2, (3, 6): 0.3, (9, 19): 0.8}
    write_result(home / "results/a", "a.tif", SIZE, SPAN, likely)
    probabilities = dict.fromkeys(ALL_PATCHES, 0.1) | {(0, 0): 0.7, (9, 19): 0.6}
    write_result(home / "results/b", "b.tif", SIZE, SPAN, probabilities)
    return ["results/a", "results/b"]


@pytest.fixture
def evaluate_results(tcc):
    def evaluate(*args):
        outcome = tcc("slide", "eval", *args, "--json")
        assert outcome.code == 0, outcome.err
        return outcome.document

    return evaluate


def test_patch_metrics_match_those_of_eval(evaluate_results, truth, results):
    patches = evaluate_results(*results, "--truth", "truth")["patches"]
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
    # Of 20 x 380 pairs, the patches of 0.2 and 0.3 lose against three patches; all other pairs are
    # won.
    assert tumour["auc"] == normal["auc"] == pytest.approx(1 - 2 * 3 / 7600)
    assert patches["mixed"] == patches["damaged"] == 0


def test_slide_and_lesion_metrics(evaluate_results, truth, results):
    document = evaluate_results(*results, "--truth", "truth")
    assert document["slides"]["auc"] == 1
    # With one slide of each kind, the interval is very wide.
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


def test_false_positives_lower_the_sensitivity(evaluate_results, truth, results, home):
    likely = dict.fromkeys(ALL_PATCHES, 0.1) | {(0, 0): 0.99, (5, 7): 0.6, (9, 19): 0.95}
    write_result(home / "worse/a", "a.tif", SIZE, SPAN, likely)
    document = evaluate_results("worse/a", "results/b", "--truth", "truth")
    # False positives of 0.99, 0.95 and 0.7 come before the lesion and 0.6 with it: from (3/2, 0) to
    # (2, 1).
    assert document["lesions"]["all_slides"]["sensitivities"] == [0, 0, 0, 1, 1, 1]
    # On the slide without tumour only 0.7 comes before it: from (1, 0) to (2, 1).
    assert document["lesions"]["slides_without_tumour"]["sensitivities"] == [0, 0, 0, 1, 1, 1]
    # 0.99 of `a` against 0.7 of `b`.
    assert document["slides"]["auc"] == 1


def test_metrics_are_printed_as_text(tcc, truth, results):
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
    """Write a mask with the size and levels of a slide, as in CAMELYON."""
    x_min, y_min, x_max, y_max = TUMOUR
    mask = np.zeros(size[::-1], np.uint8)
    mask[y_min - 64 : y_max + 64] = around
    mask[y_min:y_max, x_min:x_max] = value
    return write(path, mask, mpp=None, levels=4)


@pytest.mark.parametrize("ending", ["xml", "png", "tif"])
def test_other_annotation_formats_give_the_same(evaluate_results, truth, results, ending):
    x_min, y_min, x_max, y_max = TUMOUR
    expected_document = evaluate_results(*results, "--truth", "truth")
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
    assert evaluate_results(*results, "--truth", "truth") == expected_document


def test_unknown_mask_values_are_refused(tcc, evaluate_results, truth, results):
    expected_document = evaluate_results(*results, "--truth", "truth")
    (truth / "a.geojson").unlink()
    write_mask_pyramid(truth / "a_mask.tif", 1)
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 2
    assert "error[E1315]: it is unknown whether the value 1 of this mask is tumour" in outcome.err
    assert "use --tumour 1 if it is tumour, or --other 1" in outcome.err
    assert evaluate_results(*results, "--truth", "truth", "--tumour", "1") == expected_document
    assert evaluate_results(*results, "--truth", "truth", "--other", "1")["slides"]["tumour"] == 0
    write_mask_pyramid(truth / "a_mask.tif", 2, around=1)  # background, tissue, tumour
    args = ("--truth", "truth", "--tumour", "2", "--other", "1")
    assert evaluate_results(*results, *args) == expected_document


def test_masks_of_other_sizes_and_duplicates_are_refused(tcc, truth, results, home):
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


def test_mask_with_another_bit_depth_is_refused(tcc, truth, results):
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


def test_patch_is_tumour_if_half_of_it_is(evaluate_results, truth, home):
    (truth / "a.geojson").write_text(json.dumps([make_area("Tumor", 0, 0, 152, 100)]))
    (truth / "b.geojson").unlink()
    write_result(home / "results/a", "a.tif", SIZE, SPAN, {(0, 0): 0.9, (0, 1): 0.9})
    patches = evaluate_results("results/a", "--truth", "truth")["patches"]
    assert patches["confusion"] == [[0, 0], [0, 2]]
    assert patches["mixed"] == 1
    (truth / "a.geojson").write_text(json.dumps([make_area("Tumor", 0, 0, 148, 100)]))
    assert evaluate_results("results/a", "--truth", "truth")["patches"]["confusion"] == [
        [0, 1],
        [0, 1],
    ]


def test_empty_metrics_are_reported(tcc, truth, results, home):
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
    # A lesion without detections, and a slide without classified patches.
    outcome = tcc("slide", "eval", *results, "--truth", "truth", "--least", 1, "--json")
    assert outcome.document["lesions"]["all_slides"]["sensitivities"] == [0] * 6
    write_result(home / "none/a", "a.tif", SIZE, SPAN, {})
    outcome = tcc("slide", "eval", "none/a", "--truth", "truth", "--subset", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["patches"]["accuracy"] is None
    assert outcome.document["each"][0]["probability"] == 0
    assert outcome.document["lesions"]["all_slides"]["mean"] == 0
    assert "no patch" in tcc("slide", "eval", "none/a", "--truth", "truth", "--subset").out


def test_short_lesions_are_excluded_and_reported(tcc, evaluate_results, truth, results):
    (truth / "a.geojson").write_text(json.dumps([make_area("Tumor", 500, 300, 600, 400)]))
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert "lesions: 0; 1 shorter than 275 um are not counted" in outcome.out
    lesions = evaluate_results(*results, "--truth", "truth", "--shortest", 100)["lesions"]
    assert (lesions["lesions"], lesions["short"]) == (1, 0)


def test_slide_without_annotation_is_refused(tcc, evaluate_results, truth, results):
    expected_document = evaluate_results(*results, "--truth", "truth")
    (truth / "b.geojson").unlink()
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 2
    assert "error[E1314]: this folder has no ground truth for slide b" in outcome.err
    assert evaluate_results(*results, "--truth", "truth", "--normal") == expected_document


@pytest.mark.parametrize(
    ("name", "text", "code", "message"),
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
def test_invalid_annotations_are_refused(tcc, truth, results, name, text, code, message):
    (truth / name).write_text(text)
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 2
    assert f"error[{code}]" in outcome.err
    assert message in outcome.err


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((251, 500), np.uint8), "does not match this slide"),
        (np.full((1000, 2000), 190, np.uint8), "only black and white pixels"),
        (np.zeros((1000, 2000, 3), np.uint8) + np.array([255, 0, 7], np.uint8), "black and white"),
    ],
    ids=["other size", "grey", "the slide itself"],
)
def test_invalid_masks_are_refused(tcc, truth, results, pixels, message):
    (truth / "a.geojson").unlink()
    Image.fromarray(pixels).save(truth / "a.png")
    outcome = tcc("slide", "eval", *results, "--truth", "truth")
    assert outcome.code == 2
    assert "error[E1307]" in outcome.err
    assert message in outcome.err


@pytest.mark.parametrize(
    "changes",
    [
        {"bundle": BUNDLE | {"precision": "int8"}},
        {"threshold": 0.7},
        {"mpp": 0.5},
    ],
    ids=["bundle", "threshold", "resolution"],
)
def test_results_with_other_settings_are_refused(tcc, truth, results, home, changes):
    write_result(home / "more/b", "b.tif", SIZE, SPAN, {(0, 0): 0.5}, **changes)
    outcome = tcc("slide", "eval", "results/a", "more/b", "--truth", "truth")
    assert outcome.code == 2
    assert "error[E1322]: these results have different bundles" in outcome.err


def test_duplicate_slide_is_refused(tcc, truth, results, home):
    write_result(home / "more/other", "a.svs", SIZE, SPAN, {(0, 0): 0.5})
    outcome = tcc("slide", "eval", "results/a", "more/other", "--truth", "truth", "--subset")
    assert outcome.code == 2
    assert "error[E1322]: slide a is given twice" in outcome.err


def test_missing_annotation_folder_is_refused(tcc, results):
    outcome = tcc("slide", "eval", *results, "--truth", "nowhere")
    assert outcome.code == 2
    assert "error[E1314]: cannot read this folder of ground truth" in outcome.err


@pytest.mark.slow
def test_synthetic_slide_is_detected_patch_by_patch(tcc, evaluate_results, home, root):
    """The tool's slide of this size has two tumours of complete tiles, aligned with the patches."""
    (home / "slides").mkdir()
    tool = root / "tools/draw_slide.py"
    subprocess.run([sys.executable, tool, "slides/large.tif", "--side", "10000"], check=True)
    bundle, slide_path = build_colour_bundle(tcc, home), "slides/large.tif"
    outcome = tcc(
        "slide", "run", bundle, slide_path, "--at", 4, "--patch", 32, "--rule", "wide", "-o", "out"
    )
    assert outcome.code == 0, outcome.err
    document = evaluate_results("out/large", "--truth", "slides")
    assert document["patches"]["accuracy"] == 1
    assert document["patches"]["mixed"] == 0
    assert document["patches"]["classes"][1]["auc"] == 1
    assert document["patches"]["classes"][1]["support"] == 32
    assert (document["lesions"]["lesions"], document["lesions"]["short"]) == (2, 0)
    assert document["lesions"]["all_slides"]["sensitivities"] == [1] * 6
    # Mirrored annotations do not match the tumours.
    text = json.loads((home / "slides/large.geojson").read_text())
    for feature in text["features"]:
        for ring in feature["geometry"]["coordinates"]:
            ring[:] = [[10000 - x, y] for x, y in ring]
    (home / "slides/large.geojson").write_text(json.dumps(text))
    document = evaluate_results("out/large", "--truth", "slides")
    assert document["patches"]["classes"][1]["sensitivity"] < 0.5
    assert document["lesions"]["all_slides"]["mean"] < 0.7
