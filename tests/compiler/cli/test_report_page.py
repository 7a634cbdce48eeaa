"""`tcc build --report`: a self-contained page in the bundle."""

import json
import re
from html.parser import HTMLParser

import pytest
from web_browser import CHROMIUM, Browser

BUILD = (
    "build", "tiny.yaml", "--target", "ort", "--precision", "int8", "--method", "minmax",
    "--floor", "min_cosine=0", "--report", "--data",
)  # fmt: skip
VOID_TAGS = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """Elements, table rows and open tags of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def page(tcc, home, images):
    text = (home / "tiny.yaml").read_text()
    doc = "doc: '<script>alert(1)</script> & more'\n"
    (home / "tiny.yaml").write_text(text.replace("name: tiny\n", f"name: tiny\n{doc}"))
    outcome = tcc(*BUILD, images, "--agree", "3")
    assert outcome.code == 0, outcome.err
    return home / "build/tiny-onnxruntime-int8/report.html"


def test_report_has_agreement_and_quantization_error(page):
    report = Page(page.read_text())
    assert report.open == []
    rows = {row[0]: row[1:] for row in report.rows}
    assert rows["inputs: goldens and images"] == ["5"]
    assert re.fullmatch(r"0 of \d+", rows["outputs that are not bit-exact"][0])
    assert re.fullmatch(r"0 of [\d,]+", rows["different values in these layers"][0])
    assert rows["parameters"] == ["135"]
    assert float(rows["logits"][1].split(" to ")[0]) > 0  # the interval of the accuracy drop
    assert rows["relu"][0] == "relu"
    assert float(rows["relu"][2]) > 20  # dB
    assert rows["1"][0].startswith("sample image ")


def test_report_counts_the_replayed_goldens(tcc, home):
    """For a single target, one of two."""
    assert tcc("build", "tiny.yaml", "--target", "ort", "--report").code == 0
    text = (home / "build/tiny-onnxruntime-fp32/report.html").read_text()
    rows = {row[0]: row[1:] for row in Page(text).rows}
    assert rows["inputs: goldens and images"] == ["1"]
    assert "2" in rows  # the other golden


def list_headings(text):
    return re.findall("<h2>(.*?)</h2>", text)


def test_report_starts_with_a_summary_and_ends_with_hashes(page):
    text = page.read_text()
    assert list_headings(text)[:3] == [
        "Summary",
        "Accuracy by class",
        "int8 against fp32",
    ]
    assert list_headings(text)[-3:] == ["Identity", "Files", "Built with"]
    rows = {row[0]: row[1:] for row in Page(text).rows}
    assert "the author of the training must state it" in rows["accuracy"][0]
    assert rows["work for one image"][0].endswith("multiply-accumulates")
    assert rows["time for one image"][0].startswith("not measured by a build")
    assert "predictions mean nothing" in text[: text.index("Summary")]
    assert "Not known: no training record of this network has it." in text
    files = json.loads((page.parent / "manifest.json").read_text())["files"]
    size = sum(file["bytes"] for file in files if file["path"].startswith("model/"))
    assert rows["model files (flash)"] == [f"{size:,} bytes"]
    assert not re.search("[0-9a-f]{64}", text[: text.index("Identity")])


def test_report_has_the_metrics_of_the_training(tcc, home):
    from tcc.compiler.data import weights
    from tcc.compiler.driver import pipeline
    from tcc.compiler.frontend.spec import load

    spec = load(home / "tiny.yaml")
    source = pipeline.create_random_weights(spec.graph, 3)
    (home / "run").mkdir()
    weights.write(home / "run/weights.safetensors", source.tensors, {})
    test = {"images": 5, "correct": 3, "accuracy": 0.6, "interval": {"low": 0.14, "high": 0.95},
            "confusion": [[2, 0, 0], [2, 1, 0], [0, 0, 0]]}  # fmt: skip
    data = {"classes": ["cat", "dog", "owl"], "images": {"train": [1, 1, 1], "test": [2, 3, 0]}}
    report = {"tcc_training": 1, "weights": source.origin.digest, "data": data, "test": test}
    report["network"] = {"spec": spec.digest}
    (home / "run/report.json").write_text(json.dumps(report))
    args = ("--target", "ort", "--report", "--weights", "run/weights.safetensors")
    outcome = tcc("build", "tiny.yaml", *args)
    assert outcome.code == 0, outcome.err
    text = (home / "build/tiny-onnxruntime-fp32/report.html").read_text()
    rows = [row for row in Page(text).rows if row]
    assert [
        "accuracy",
        "3 of 5 test images correct, 60.00% (95 % confidence interval 14.00% to 95.00%), in float32",
    ] in rows
    assert ["dog", "2", "1", "0"] in rows
    assert ["dog", "cat", "2"] in rows
    assert "owl: sensitivity not known, because no test image is of this class" in text


def test_report_has_no_scripts_links_or_user_images(page):
    data = page.read_bytes()
    assert len(data) < 100_000
    report = Page(data.decode())
    tags = {tag for tag, _ in report.tags}
    assert not tags & {"script", "link", "iframe", "object", "form", "a"}
    (image_source,) = [attrs["src"] for tag, attrs in report.tags if tag == "img"]
    assert image_source.startswith("data:image/svg+xml;base64,")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in data.decode()
    assert b"default-src 'none'" in data


def test_changed_report_is_detected(page, tcc):
    page_before = page.read_bytes()
    assert tcc("verify", page.parent).code == 0
    page.write_bytes(page_before.replace(b"0 of", b"1 of", 1))
    outcome = tcc("verify", page.parent)
    assert outcome.code == 2
    assert "E0622" in outcome.err
    assert "report.html" in outcome.err


def test_report_is_reproducible_in_another_folder(page, tcc, images):
    assert tcc(*BUILD, images, "--agree", "3", "-o", "other").code == 0
    assert (
        page.parents[2].joinpath("other", page.parent.name, page.name).read_bytes()
        == page.read_bytes()
    )


def test_report_states_a_missing_comparison(tcc, home):
    outcome = tcc("build", "tiny.yaml", "--target", "ort", "--report", "--no-replay")
    assert outcome.code == 0
    text = (home / "build/tiny-onnxruntime-fp32/report.html").read_text()
    assert "Not compared with the reference: --no-replay." in text
    assert "This bundle has no int8 model." in text


def test_float_report_has_only_the_tolerance(tcc, home):
    """The measured error depends on the processor, and so would the bytes of the page."""
    assert tcc("build", "tiny.yaml", "--target", "ort", "--report").code == 0
    rows = Page((home / "build/tiny-onnxruntime-fp32/report.html").read_text()).rows
    (row,) = [row for row in rows if row[0].startswith("outputs within")]
    assert row == ["outputs within 1e-04 of the largest magnitude", "3 of 3"]
    assert not [row for row in rows if row[0] == "outputs that are not bit-exact"]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_report_fits_the_browser_window(page, tmp_path, width, scheme):
    with Browser(tmp_path / "profile") as browser:
        browser("Page.navigate", url=page.as_uri())
        browser.wait("document.readyState === 'complete'")
        browser.look(width, 900, scheme, tmp_path / "seen.png")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert browser.evaluate("document.querySelector('img').naturalWidth > 100")
        back = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == ("rgb(13, 17, 23)" if scheme == "dark" else "rgb(255, 255, 255)")
        nodes = browser("Accessibility.getFullAXTree")["nodes"]
        accessible_names = {(n["role"]["value"], n["name"]["value"]) for n in nodes if "name" in n}
        assert {("heading", "Agreement"), ("region", "figure of the network")} <= accessible_names
        sent = [
            request["request"]["url"] for request in browser.get_events("Network.requestWillBeSent")
        ]
        assert {url.split(":")[0] for url in sent} <= {"file", "data"}
        assert browser.get_events("Log.entryAdded") == []
