"""`tcc build --target web`, and the commands for its bundles."""

import http.client
import json
import threading
from pathlib import Path

import pytest
from web_node import NODE, run_node

from tcc.backends.web.backend import RUNTIME_PACKAGE
from tcc.compiler.bundle import bundle_folder
from tcc.compiler.cli.serve import create_server
from tcc.compiler.support.external_tools import MissingTool
from tcc.compiler.targets import devices

BUILD = ("build", "tiny.yaml", "--target", "web")
REPLAY = """
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
const root = process.argv[2] + '/';
const { Classifier } = await import(pathToFileURL(root + 'model/classifier.js').href);
const read = async (path) => new Uint8Array(readFileSync(root + path));
const page = await Classifier.open(read);
const sound = await page.replay();
const [first, second] = page.manifest.goldens.cases;
first.outputs = second.outputs;
const swapped = await page.replay();
process.stdout.write(JSON.stringify([sound, swapped]), () => process.exit(0));
"""


@pytest.fixture
def page(tcc, home):
    """The folder of a web bundle."""
    try:
        RUNTIME_PACKAGE.load_files()
    except MissingTool as error:
        pytest.skip(f"{error} {error.reason}")
    assert tcc(*BUILD, "-q", "--no-replay").code == 0
    return home / "build/tiny-web-fp32"


@pytest.fixture
def ask(page):
    """Request a path from a server of the page: status, headers and body."""
    bundle = bundle_folder.read_bundle(page, devices.find_precision, None)
    with create_server(bundle, "127.0.0.1", 0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()

        def answer(path, method="GET", host="localhost"):
            client = http.client.HTTPConnection(*listening.server_address[:2], timeout=20)
            client.putrequest(method, path, skip_host=True)
            client.putheader("Host", host)
            client.endheaders()
            got = client.getresponse()
            body = got.read()
            client.close()
            return got.status, dict(got.getheaders()), body

        yield answer
        listening.shutdown()


def test_page_is_built_verified_and_run(tcc, page, picture):
    if not NODE:
        pytest.skip("needs Node.js: apt-get install nodejs")
    manifest_json = json.loads((page / "manifest.json").read_text())
    assert manifest_json["made_with"]["onnxruntime-web"] == RUNTIME_PACKAGE.version
    outcome = tcc("verify", page)
    assert (outcome.code, outcome.err) == (
        0,
        "warning: the weights are random: predictions mean nothing\n",
    ) or outcome.code == 0
    assert tcc("build", "tiny.yaml", "--target", "ort", "-q").code == 0
    onnxruntime_logits, web_logits = (
        tcc("run", bundle, picture, "--json").document["images"][0]["outputs"]["logits"]["raw"]
        for bundle in (page.parent / "tiny-onnxruntime-fp32", page)
    )
    assert web_logits == pytest.approx(onnxruntime_logits, abs=1e-6)
    sound, swapped = run_node(REPLAY, page.parent, page)
    assert (sound["holds"], sound["goldens"], sound["inputs"]) == (True, 2, 0)
    assert sound["largest"] <= sound["allowed"] == manifest_json["goldens"]["tolerance"]["relative"]
    assert not swapped["holds"]


def test_missing_node_is_reported(tcc, page, picture, monkeypatch):
    monkeypatch.setenv("PATH", "")
    outcome = tcc("verify", page)
    assert outcome.code == 3
    assert (
        "error: node is needed to run pages on this machine, but it is not installed\n"
        in outcome.err
    )
    assert "help: install it: apt-get install nodejs" in outcome.err
    assert (
        tcc(*BUILD).out.splitlines()[2]
        == "  not compared with the reference: node is not installed"
    )


def test_missing_npm_package_is_reported(tcc, home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    program = home / "npm"
    program.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(home))
    outcome = tcc(*BUILD)
    assert outcome.code == 3
    assert outcome.err.splitlines()[-3:] == [
        "error: onnxruntime-web is needed to build pages for browsers, but it is not installed",
        "   = note: npm cannot fetch it: npm error code ENOTFOUND",
        "   = help: install it: apt-get install npm, or put the archive from "
        "`npm pack onnxruntime-web@1.30.0` into ~/.cache/tcc/onnxruntime-web",
    ]
    assert not (home / "build").exists()
    program.unlink()
    assert tcc(*BUILD).code == 3


def test_page_files_are_served(ask, page):
    status, headers, _ = ask("/")
    assert (status, headers["Location"]) == (302, "/model/index.html")
    kinds = {
        "index.html": "text/html; charset=utf-8", "app.js": "text/javascript; charset=utf-8",
        "onnxruntime/ort.wasm.bundle.min.mjs": "text/javascript; charset=utf-8",
        "onnxruntime/ort-wasm-simd-threaded.wasm": "application/wasm",
        "model.onnx": "application/octet-stream", "style.css": "text/css; charset=utf-8",
    }  # fmt: skip
    for name, kind in kinds.items():
        status, headers, body = ask(f"/model/{name}")
        assert (status, headers["Content-Type"]) == (200, kind)
        assert body == (page / "model" / name).read_bytes()
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "script-src 'self' 'wasm-unsafe-eval';" in headers["Content-Security-Policy"]
    assert ask("/manifest.json?x=1#y")[2] == (page / "manifest.json").read_bytes()
    assert ask("/model/app.js", "HEAD")[2] == b""


OTHER_PATHS = (
    "/model", "/model/", "/model/../../tiny.yaml", "/%2e%2e/tiny.yaml", "//etc/passwd",
    "/model/app.js/", "/nothing", "/model%2f..%2f..%2ftiny.yaml", "/model/app.js%00",
)  # fmt: skip


def test_other_paths_hosts_and_methods_are_refused(ask, page):
    assert {path: ask(path)[0] for path in OTHER_PATHS} == dict.fromkeys(OTHER_PATHS, 404)
    for host in ("evil.example", "evil.example:80", "", "127.0.0.1.evil.example"):
        assert ask("/manifest.json", host=host)[0] == 421
    for host in ("localhost:8000", "127.0.0.1", "[::1]:9"):
        assert ask("/manifest.json", host=host)[0] == 200
    for method in ("POST", "PUT", "DELETE"):
        assert ask("/manifest.json", method)[0] == 501
    (page / "model/app.js").unlink()
    assert ask("/model/app.js")[0] == 404


def test_serve_refuses_other_bundles_and_addresses(tcc, page, built, monkeypatch):
    outcome = tcc("serve", built)
    assert outcome.code == 2
    assert "error[E0659]: a bundle for onnxruntime has no page to serve\n" in outcome.err
    for args in (("--host", "192.0.2.1"), ("--host", "no such host"), ("--host", "ü" * 80)):
        outcome = tcc("serve", page, *args, "--port", "0")
        assert outcome.code == 2, outcome.err
        assert "error[E0661]: cannot listen on " in outcome.err
    assert tcc("serve", page, "--port", "70000").code == 2
    assert Path("build").is_dir()
