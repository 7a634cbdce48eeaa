"""The page of `tcc build --target web` in Chromium."""

import base64
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from web_browser import CHROMIUM, Browser

from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.backends.web.backend import RUNTIME_PACKAGE
from tcc.compiler.bundle import bundle_folder
from tcc.compiler.cli.serve import create_server
from tcc.compiler.data import images
from tcc.compiler.ir import preprocess
from tcc.compiler.support.external_tools import MissingTool
from tcc.compiler.targets import devices

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium"),
]
SAMPLES = sorted((Path(__file__).resolve().parents[3] / "zoo/samples").glob("*/1.png"))[:4]
READY_SCRIPT = "document.documentElement?.dataset.ready === 'yes'"
CARDS = "document.querySelectorAll('#results > li').length"
CLASSIFY = """(async () => {
  const { Classifier } = await import('/model/classifier.js');
  const read = async (path) => new Uint8Array(await (await fetch('/' + path)).arrayBuffer());
  globalThis.own ??= await Classifier.open(read);
  const bytes = Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0));
  return own.classify(bytes);
})()"""
CONTRAST = """(() => {
  const shade = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    const own = getComputedStyle(node).backgroundColor;
    return own === 'rgba(0, 0, 0, 0)' ? ground(node.parentElement) : own;
  };
  return [...document.querySelectorAll('h1,h2,h3,p,button:enabled,summary,.share')]
    .filter((node) => node.checkVisibility() && node.textContent.trim())
    .map((node) => [shade(getComputedStyle(node).color), shade(ground(node))])
    .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
})()"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from typer.testing import CliRunner

    from tcc.compiler.cli import app

    try:
        RUNTIME_PACKAGE.load_files()
    except MissingTool as error:
        pytest.skip(f"{error} {error.reason}")
    folder = tmp_path_factory.mktemp("page")
    args = ["build", "ddsnet-blood", "--target", "web", "--precision", "int8", "--no-replay"]
    outcome = CliRunner().invoke(app, [*args, "-q", "-o", str(folder)])
    assert outcome.exit_code == 0, outcome.output
    return bundle_folder.read_bundle(folder / "ddsnet-blood-web-int8", devices.find_precision, None)


@pytest.fixture(scope="module")
def browser(bundle, tmp_path_factory):
    """A browser with the page, ready for use."""
    with create_server(bundle, "127.0.0.1", 0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        with Browser(tmp_path_factory.mktemp("profile")) as page:
            page("Page.navigate", url=listening.url)
            page.wait(READY_SCRIPT)
            yield page
        listening.shutdown()


@pytest.fixture
def opened(browser):
    """The same page without results."""
    browser.wait("document.getElementById('progress').hidden")
    browser.evaluate("document.getElementById('clear').click()")
    return browser


def test_page_matches_the_reference(opened, bundle):
    agreement_text = opened.evaluate("document.getElementById('agreement').textContent")
    assert agreement_text == (
        "This browser matches the reference: 0 of 24 bytes differ over 2 test vectors."
    )
    runtime, source = OnnxRuntime(), bundle.input
    pixels = [images.read_image(path) for path in SAMPLES]
    tensors = [preprocess.apply(source.preprocess, x, source.type.shape) for x in pixels]
    expected_outputs = runtime.infer(runtime.targets[0], bundle.model, source, tensors)
    for path, outputs in zip(SAMPLES, expected_outputs, strict=True):
        page_result = opened.evaluate(CLASSIFY % base64.b64encode(path.read_bytes()).decode())
        (output,) = page_result["outputs"]
        assert np.float32(output["raw"]).tobytes() == outputs["logits"].tobytes()
        assert page_result["exact"] is True
        shares = [class_row["value"] for class_row in output["ranked"]]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)


def test_images_from_files_drops_and_the_camera(opened, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    shutil.copy(SAMPLES[0], tmp_path / "=first.png")
    opened.choose("#files", [tmp_path / "=first.png", SAMPLES[1], tmp_path / "text.png"])
    opened.wait(f"{CARDS} === 3")
    failure_text = opened.evaluate("document.querySelector('li.failed').innerText")
    assert "Unknown image format" in failure_text
    opened.evaluate("""(() => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array([66, 77, 0])], 'dropped.bmp'));
      document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true }));
    })()""")
    opened.wait(f"{CARDS} === 4")
    opened.evaluate("document.getElementById('camera').click()")
    opened.wait("document.getElementById('video').videoWidth > 0")
    opened.evaluate("document.getElementById('take').click()")
    opened.wait(f"{CARDS} === 5")
    card = opened.evaluate("document.querySelector('#results > li').innerText")
    assert card.startswith("photo 1\n")
    assert "%" in card
    opened.wait("document.getElementById('progress').hidden")
    assert opened.evaluate("document.getElementById('state').textContent") == "3 images classified."
    opened.evaluate("document.getElementById('clear').click()")
    assert opened.evaluate(CARDS) == 0


def test_saturating_images_give_a_warning(opened, tmp_path):
    cells = sorted((SAMPLES[0].parents[2] / "cells").glob("[RW]BC/*.png"))
    warned = "!document.getElementById('saturation').hidden"
    opened.choose("#files", cells)
    opened.wait(f"{CARDS} === {len(cells)}")
    assert not opened.evaluate(warned)
    opened.evaluate("document.getElementById('clear').click()")
    for number, path in enumerate(cells):
        dark = 255 * (images.read_image(path) / 255) ** 2.2  # as another lamp or camera may give
        Image.fromarray(dark.astype(np.uint8)).save(tmp_path / f"{number}.png")
    opened.choose("#files", sorted(tmp_path.glob("*.png")))
    opened.wait(f"{CARDS} === {len(cells)}")
    assert opened.evaluate(warned)
    saturation_text = opened.evaluate("document.getElementById('saturation').textContent")
    assert " of 62 layers, more values clip on these " in saturation_text


def test_page_sends_no_data(opened):
    opened.choose("#files", SAMPLES[:1])
    opened.wait(f"{CARDS} === 1")
    urls = [request["request"]["url"] for request in opened.get_events("Network.requestWillBeSent")]
    assert len(urls) > 10
    assert {url.split("/")[2] for url in urls if url.startswith("http")} == {
        opened.evaluate("location.host")
    }
    assert opened.get_events("Log.entryAdded") == []
    assert opened.get_events("Runtime.exceptionThrown") == []
    refused = opened.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'refused')")
    assert refused == "refused"
    evaluated = opened(
        "Runtime.evaluate", expression="eval('1')", allowUnsafeEvalBlockedByCSP=False
    )
    assert "EvalError" in evaluated["exceptionDetails"]["exception"]["description"]


def test_page_works_for_keyboards_screen_readers_and_phones(opened, tmp_path):
    opened.choose("#files", SAMPLES[:2])
    opened.wait(f"{CARDS} === 2 && document.getElementById('progress').hidden")
    tree = opened("Accessibility.getFullAXTree")["nodes"]
    accessible_names = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored")
    }
    for name in ("Use camera", "Remove all", "Save as CSV"):
        assert ("button", name) in accessible_names
    assert any(
        role == "button" and name.startswith("Choose images") for role, name in accessible_names
    )
    assert any(role == "image" and "%" in name for role, name in accessible_names)
    assert {"main", "heading", "status", "list"} <= {role for role, _ in accessible_names}
    start = "(() => { const h1 = document.querySelector('h1'); h1.tabIndex = -1; h1.focus(); })()"
    opened.evaluate(start)
    reached = []
    for _ in range(5):
        for kind in ("keyDown", "keyUp"):
            opened(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
            )
        reached.append(
            opened.evaluate("document.activeElement.id || document.activeElement.tagName")
        )
    assert [*dict.fromkeys(reached)][:4] == ["files", "camera", "clear", "save"]
    for scheme, width in (("light", 360), ("dark", 360), ("light", 1200), ("dark", 1200)):
        path = tmp_path / f"{scheme}-{width}.png"
        opened.look(width, 800, scheme, path)
        assert opened.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        assert min(opened.evaluate(CONTRAST)) >= 4.5, (scheme, width)
        screenshot = images.read_image(path)
        assert screenshot.shape[1] <= width
        corner = int(screenshot[2, 2].astype(int).sum())
        assert (corner > 700) if scheme == "light" else (corner < 120)
        heights = opened.evaluate(
            "[...document.querySelectorAll('button')].filter((b) => b.checkVisibility())"
            ".map((b) => b.getBoundingClientRect().height)"
        )
        assert min(heights) >= 44


def test_files_that_differ_from_the_manifest_are_refused(bundle, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(bundle.folder, folder)
    changed_bundle = bundle_folder.read_bundle(folder, devices.find_precision, None)
    with (
        create_server(changed_bundle, "127.0.0.1", 0) as listening,
        Browser(tmp_path / "profile") as page,
    ):
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        for name in ("model/model.onnx", "goldens/1/output_0.bin"):
            file_bytes = (folder / name).read_bytes()
            (folder / name).write_bytes(bytes([file_bytes[0] ^ 1]) + file_bytes[1:])
            page("Page.navigate", url=listening.url)
            page.wait(
                "document.getElementById('state').textContent.startsWith('The page cannot start')"
            )
            page_text = page.evaluate("document.getElementById('state').textContent")
            assert f"{name} does not match the manifest" in page_text
            assert page.evaluate("document.getElementById('files').disabled")
            (folder / name).write_bytes(file_bytes)
        manifest_json = json.loads((folder / "manifest.json").read_text())
        manifest_json["goldens"]["cases"][0]["outputs"]["logits"] = "goldens/2/output_0.bin"
        (folder / "manifest.json").write_text(json.dumps(manifest_json))
        page("Page.navigate", url=listening.url)
        page.wait(READY_SCRIPT)
        page_text = page.evaluate("document.getElementById('agreement').textContent")
        assert page_text.startswith("Do not use this browser, ")
        listening.shutdown()
