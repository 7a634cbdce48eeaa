"""`tcc slide eval`: results of slides against what was drawn on them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from drawn_slides import colour_bundle, drawn, write
from PIL import Image
from stored_slides import BUNDLE, write_result

pytest.importorskip("openslide", reason="needs the extra `slides`")
SPAN = 100
SIZE = (2000, 1000)
TUMOUR = (500, 300, 1000, 700)
"""Left, top, right, bottom: patches of columns 5 to 9 and rows 3 to 6."""
INSIDE = {(row, column) for row in range(3, 7) for column in range(5, 10)}
EVERY = {(row, column) for row in range(10) for column in range(20)}


def area(name, left, top, right, bottom):
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    about = {"classification": {"name": name}}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": about}


@pytest.fixture
def truth(home):
    """A slide with a tumour, and one without."""
    folder = home / "truth"
    folder.mkdir()
    (folder / "a.geojson").write_text(json.dumps([area("Tumor", *TUMOUR)]))
    (folder / "b.geojson").write_text("[]")
    return folder


@pytest.fixture
def results(home):
    """Of `a` 18 of 20 patches are found, and one beside them; of `b` two are taken for tumour."""
    likely = dict.fromkeys(EVERY, 0.1) | dict.fromkeys(INSIDE, 0.9)
    likely |= {(3, 5): 0.2, (3, 6): 0.3, (9, 19): 0.8}
    write_result(home / "results/a", "a.tif", SIZE, SPAN, likely)
    other = dict.fromkeys(EVERY, 0.1) | {(0, 0): 0.7, (9, 19): 0.6}
    write_result(home / "results/b", "b.tif", SIZE, SPAN, other)
    return ["results/a", "results/b"]


@pytest.fixture
def judged(tcc):
    def judged(*words):
        done = tcc("slide", "eval", *words, "--json")
        assert done.code == 0, done.err
        return done.document

    return judged


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
    found = judged(*results, "--truth", "truth")
    assert found["slides"]["auc"] == 1
    # One slide of each kind says next to nothing.
    assert found["slides"]["interval"] == {"low": pytest.approx(0.2065, abs=1e-4), "high": 1}
    lesions = found["lesions"]
    assert lesions["rates"] == [0.25, 0.5, 1, 2, 4, 8]
    assert (lesions["lesions"], lesions["short"]) == (1, 0)
    assert lesions["all_slides"]["sensitivities"] == [1] * 6
    assert lesions["slides_without_tumour"]["mean"] == 1
    one, other = found["each"]
    (lesion,) = one["lesions"]
    assert (lesion["x"], lesion["y"], lesion["probability"]) == (750, 500, 0.9)
    assert one["false_positives"] == [{"x": 1950, "y": 950, "probability": 0.8}]
    assert [spot["probability"] for spot in other["false_positives"]] == [0.7, 0.6]


def test_what_is_likelier_elsewhere_costs_sensitivity(judged, truth, results, home):
    likely = dict.fromkeys(EVERY, 0.1) | {(0, 0): 0.99, (5, 7): 0.6, (9, 19): 0.95}
    write_result(home / "worse/a", "a.tif", SIZE, SPAN, likely)
    found = judged("worse/a", "results/b", "--truth", "truth")
    # False ones of 0.99, 0.95, 0.7 come before the lesion and 0.6 with it: from (3/2, 0) to (2, 1).
    assert found["lesions"]["all_slides"]["sensitivities"] == [0, 0, 0, 1, 1, 1]
    # On the slide without tumour 0.7 alone comes before it: from (1, 0) to (2, 1).
    assert found["lesions"]["slides_without_tumour"]["sensitivities"] == [0, 0, 0, 1, 1, 1]
    # 0.99 of `a` against 0.7 of `b`.
    assert found["slides"]["auc"] == 1


def test_the_table(tcc, truth, results):
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert done.code == 0, done.err
    for line in (
        "patches: accuracy 98.75%, 395 of 400 patches (95% interval",
        "intervals take patches for independent; those of one slide are not",
        "slides: 2, 1 with tumour; ROC-AUC 1.0000",
        "lesions: 1\n",
        "false positives a slide   0.25    0.5",
        "a            1      1                1  0.9000",
        "b            0      0                2  0.7000",
    ):
        assert line in done.out


def pyramid(path, value=255, size=SIZE, around=0):
    """Write a mask as large as a slide, with levels, as CAMELYON's are."""
    left, top, right, bottom = TUMOUR
    mask = np.zeros(size[::-1], np.uint8)
    mask[top - 64 : bottom + 64] = around
    mask[top:bottom, left:right] = value
    return write(path, mask, mpp=None, levels=4)


@pytest.mark.parametrize("ending", ["xml", "png", "tif"])
def test_truth_of_other_kinds(judged, truth, results, ending):
    left, top, right, bottom = TUMOUR
    wanted = judged(*results, "--truth", "truth")
    (truth / "a.geojson").unlink()
    if ending == "tif":
        pyramid(truth / "a_mask.tif")
    elif ending == "png":
        mask = np.zeros((250, 500), np.uint8)  # squares of four pixels
        mask[top // 4 : bottom // 4, left // 4 : right // 4] = 255
        Image.fromarray(mask).save(truth / "a.png")
    else:
        points = ((left, top), (right, top), (right, bottom), (left, bottom))
        text = "".join(
            f'<Coordinate Order="{n}" X="{x}" Y="{y}"/>' for n, (x, y) in enumerate(points)
        )
        (truth / "a.xml").write_text(
            '<ASAP_Annotations><Annotations><Annotation Type="Polygon" PartOfGroup="_0"><Coordinates>'
            f"{text}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
        )
    assert judged(*results, "--truth", "truth") == wanted


def test_values_of_masks_are_not_guessed(tcc, judged, truth, results):
    wanted = judged(*results, "--truth", "truth")
    (truth / "a.geojson").unlink()
    pyramid(truth / "a_mask.tif", 1)
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert done.code == 2
    assert "error[E1315]: is the value 1 of this mask tumour?" in done.err
    assert "--tumour 1, or with --other 1" in done.err
    assert judged(*results, "--truth", "truth", "--tumour", "1") == wanted
    assert judged(*results, "--truth", "truth", "--other", "1")["slides"]["tumour"] == 0
    pyramid(truth / "a_mask.tif", 2, around=1)  # background, tissue, tumour
    words = ("--truth", "truth", "--tumour", "2", "--other", "1")
    assert judged(*results, *words) == wanted


def test_a_mask_of_another_slide_and_a_slide(tcc, truth, results, home):
    pyramid(truth / "a_mask.tif")
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert "error[E1314]: a.geojson and a_mask.tif are both of slide a" in done.err
    (truth / "a.geojson").unlink()
    pyramid(truth / "a_mask.tif", size=(2000, 999))
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert "error[E1307]: this mask of 2000 x 999 pixels is not of this slide" in done.err
    write(truth / "a_mask.tif", drawn(*SIZE))
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert "error[E1307]" in done.err
    assert "this is in colour" in done.err
    (truth / "a_mask.tif").write_bytes(b"II")
    assert tcc("slide", "eval", *results, "--truth", "truth").code == 2


def test_a_mask_of_another_depth_is_no_slide_of_it(tcc, truth, results):
    import tifffile

    (truth / "a.geojson").unlink()
    write(truth / "a_mask.tif", np.zeros(SIZE[::-1], np.uint16), mpp=None)
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert done.code == 2
    assert "error[E1303]: this mask's samples have 16 bits, and 8 are read" in done.err
    with tifffile.TiffWriter(truth / "a_mask.tif") as file:
        file.write(np.zeros(SIZE[::-1], bool), tile=(64, 64), metadata=None)
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert done.code == 2
    assert "error[E1303]: this mask's samples have 1 bit, and 8 are read" in done.err
    assert "convert it to 8 bits" in done.err
    assert "slide's" not in done.err
    assert "networks" not in done.err


def test_a_patch_is_tumour_where_half_of_it_is(judged, truth, home):
    (truth / "a.geojson").write_text(json.dumps([area("Tumor", 0, 0, 152, 100)]))
    (truth / "b.geojson").unlink()
    write_result(home / "results/a", "a.tif", SIZE, SPAN, {(0, 0): 0.9, (0, 1): 0.9})
    found = judged("results/a", "--truth", "truth")["patches"]
    assert found["confusion"] == [[0, 0], [0, 2]]
    assert found["mixed"] == 1
    (truth / "a.geojson").write_text(json.dumps([area("Tumor", 0, 0, 148, 100)]))
    assert judged("results/a", "--truth", "truth")["patches"]["confusion"] == [[0, 1], [0, 1]]


def test_what_is_empty_is_said(tcc, truth, results, home):
    done = tcc("slide", "eval", "results/b", "--truth", "truth", "--subset", "--json")
    found = done.document
    assert found["patches"]["classes"][1]["sensitivity"] is None
    assert found["patches"]["classes"][1]["auc"] is None
    assert found["slides"]["auc"] is None
    assert found["lesions"]["all_slides"] is None
    done = tcc("slide", "eval", "results/b", "--truth", "truth", "--subset")
    assert "slides: 1, 0 with tumour: of one kind alone, which no ROC curve is of" in done.out
    assert "no lesion is counted: there is no sensitivity" in done.out
    # A lesion that nothing was detected in, and a slide on which nothing was classified.
    done = tcc("slide", "eval", *results, "--truth", "truth", "--least", 1, "--json")
    assert done.document["lesions"]["all_slides"]["sensitivities"] == [0] * 6
    write_result(home / "none/a", "a.tif", SIZE, SPAN, {})
    done = tcc("slide", "eval", "none/a", "--truth", "truth", "--subset", "--json")
    assert done.code == 0, done.err
    assert done.document["patches"]["accuracy"] is None
    assert done.document["each"][0]["probability"] == 0
    assert done.document["lesions"]["all_slides"]["mean"] == 0
    assert "no patch" in tcc("slide", "eval", "none/a", "--truth", "truth", "--subset").out


def test_short_lesions_are_left_out_aloud(tcc, judged, truth, results):
    (truth / "a.geojson").write_text(json.dumps([area("Tumor", 500, 300, 600, 400)]))
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert "lesions: 0; 1 shorter than 275 um are not counted" in done.out
    found = judged(*results, "--truth", "truth", "--shortest", 100)["lesions"]
    assert (found["lesions"], found["short"]) == (1, 0)


def test_slides_without_truth(tcc, judged, truth, results):
    wanted = judged(*results, "--truth", "truth")
    (truth / "b.geojson").unlink()
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert done.code == 2
    assert "error[E1314]: nothing here says what of slide b is tumour" in done.err
    assert judged(*results, "--truth", "truth", "--normal") == wanted


@pytest.mark.parametrize(
    ("name", "text", "code", "said"),
    [
        ("c.geojson", "[]", "E1321", "of slides that have no result: c"),
        ("a.xml", "", "E1314", "a.geojson and a.xml are both of slide a"),
        (
            "a.geojson",
            json.dumps([area("Tumor", 0, 0, 2100, 90)]),
            "E1320",
            "reaches column 2100, row 0",
        ),
        ("a.geojson", json.dumps([area("Lesion", 0, 0, 90, 90)]), "E1315", "is class `Lesion`"),
        ("a.geojson", "{", "E1306", "a.geojson"),
    ],
    ids=str,
)
def test_truth_that_does_not_fit(tcc, truth, results, name, text, code, said):
    (truth / name).write_text(text)
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert done.code == 2
    assert f"error[{code}]" in done.err
    assert said in done.err


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((251, 500), np.uint8), "is not of this slide"),
        (np.full((1000, 2000), 190, np.uint8), "black and white alone"),
        (np.zeros((1000, 2000, 3), np.uint8) + np.array([255, 0, 7], np.uint8), "black and white"),
    ],
    ids=["other size", "grey", "the slide itself"],
)
def test_masks_that_are_none(tcc, truth, results, pixels, said):
    (truth / "a.geojson").unlink()
    Image.fromarray(pixels).save(truth / "a.png")
    done = tcc("slide", "eval", *results, "--truth", "truth")
    assert done.code == 2
    assert "error[E1307]" in done.err
    assert said in done.err


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
    done = tcc("slide", "eval", "results/a", "more/b", "--truth", "truth")
    assert done.code == 2
    assert "error[E1322]: these results are not of one bundle" in done.err


def test_a_slide_that_is_there_twice(tcc, truth, results, home):
    write_result(home / "more/other", "a.svs", SIZE, SPAN, {(0, 0): 0.5})
    done = tcc("slide", "eval", "results/a", "more/other", "--truth", "truth", "--subset")
    assert done.code == 2
    assert "error[E1322]: slide a is there twice" in done.err


def test_no_folder_of_truth(tcc, results):
    done = tcc("slide", "eval", *results, "--truth", "nowhere")
    assert done.code == 2
    assert "error[E1314]: this is no folder of slides' tumours" in done.err


@pytest.mark.slow
def test_a_drawn_slide_is_found_to_the_patch(tcc, judged, home, root):
    """The tool's slide has two tumours of whole tiles at this size, on which patches lie."""
    (home / "slides").mkdir()
    tool = root / "tools/draw_slide.py"
    subprocess.run([sys.executable, tool, "slides/large.tif", "--side", "10000"], check=True)
    bundle, where = colour_bundle(tcc, home), "slides/large.tif"
    done = tcc(
        "slide", "run", bundle, where, "--at", 4, "--patch", 32, "--rule", "wide", "-o", "out"
    )
    assert done.code == 0, done.err
    found = judged("out/large", "--truth", "slides")
    assert found["patches"]["accuracy"] == 1
    assert found["patches"]["mixed"] == 0
    assert found["patches"]["classes"][1]["auc"] == 1
    assert found["patches"]["classes"][1]["support"] == 32
    assert (found["lesions"]["lesions"], found["lesions"]["short"]) == (2, 0)
    assert found["lesions"]["all_slides"]["sensitivities"] == [1] * 6
    # Truth of a slide that was turned round: nothing of it is where the tumour is.
    text = json.loads((home / "slides/large.geojson").read_text())
    for feature in text["features"]:
        for ring in feature["geometry"]["coordinates"]:
            ring[:] = [[10000 - x, y] for x, y in ring]
    (home / "slides/large.geojson").write_text(json.dumps(text))
    found = judged("out/large", "--truth", "slides")
    assert found["patches"]["classes"][1]["sensitivity"] < 0.5
    assert found["lesions"]["all_slides"]["mean"] < 0.7
