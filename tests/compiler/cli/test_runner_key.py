"""`tcc build --require-signature` and `tcc sign --runner-key`, from the first build to a fitted bundle."""

import json
import subprocess

import forged_bundles
import pytest
from PIL import Image

pytest.importorskip("tvm", reason="needs the extra `arm`")
pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("device", "other"):
        private, public = folder / f"{name}.pem", folder / f"{name}.pub"
        openssl("genpkey", "-algorithm", "ed25519", "-out", private)
        openssl("pkey", "-in", private, "-pubout", "-out", public)
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "maker.pem")
    openssl("ec", "-in", folder / "maker.pem", "-pubout", "-out", folder / "maker.pub")
    return folder


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture
def bundle(tcc, home, state, keys):
    ended = tcc(
        "build", "tiny.yaml", "--target", "host", "--require-signature", keys / "device.pub"
    )
    assert ended.code == 0, ended.err
    assert "its program starts once it is signed: `tcc sign BUNDLE --runner-key" in ended.out
    assert "agrees with the reference" in ended.out
    return home / "build/tiny-host-fp32"


def code(ended):
    return f"{ended.code} {ended.err.partition('error[')[2][:5]}".strip()


def test_a_bundle_runs_once_its_program_is_signed(tcc, bundle, keys, picture):
    for words in (("run", bundle, picture), ("verify", bundle)):
        ended = tcc(*words)
        assert "E1365" in ended.err, (words, ended)
        assert "tcc sign BUNDLE --runner-key PRIVATE.pem" in ended.err
        assert ended.code == 2
    ended = tcc("sign", bundle, "--runner-key", keys / "device.pem")
    assert (ended.code, ended.out) == (0, f"{bundle}/model/tiny-run.sig\n"), ended.err
    assert tcc("run", bundle, picture).code == 0
    verified = tcc("verify", bundle, "--json")
    assert verified.code == 0, verified.err
    archive, shared = verified.document["bundles"][0]["libraries"]
    assert archive["same_bytes"] == "a program linked with it is tiny-run"
    assert (shared["holds"], len(shared["agreement"])) == (True, 2)
    again = tcc("sign", bundle, "--runner-key", keys / "device.pem")
    assert again.code == 0


def test_the_bundle_says_what_is_in_it(bundle, keys):
    assert (bundle / "model/tiny-run.pem").read_bytes() == (keys / "device.pub").read_bytes()
    bill = json.loads((bundle / "bom.cdx.json").read_text())
    libraries = {each["name"]: each.get("version") for each in bill["components"]}
    assert libraries["monocypher"] == "4.0.3"
    assert "tiny-run.sig" in (bundle / "model/README.txt").read_text()
    assert "Monocypher" in (bundle / "model/src/LICENCE-monocypher.txt").read_text()


def test_whoever_seals_the_bundle_again_does_not_get_past_the_program(tcc, bundle, keys, picture):
    assert tcc("sign", bundle, "--runner-key", keys / "device.pem").code == 0
    signature = bundle / "model/tiny-run.sig"
    signature.write_bytes(bytes(64))
    assert code(tcc("run", bundle, picture)) == "2 E0622"
    forged_bundles.forged(bundle, "host")
    assert code(tcc("run", bundle, picture, "--trust")) == "2 E1365"


def test_both_signatures_are_written_in_their_order(tcc, bundle, keys, picture, monkeypatch, home):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    assert code(tcc("sign", bundle, "--key", keys / "maker.pem")) == "2 E1369"
    both = ("--runner-key", keys / "device.pem", "--key", keys / "maker.pem")
    ended = tcc("sign", bundle, *both)
    assert ended.out == f"{bundle}/model/tiny-run.sig\n{bundle}/model.sig\n", ended.err
    assert tcc("trust", "add", keys / "maker.pub").code == 0
    assert tcc("run", bundle, picture).code == 0
    # The program's signature alone is there already.
    assert tcc("sign", bundle, "--key", keys / "maker.pem").code == 0
    # Of the files before: what signs the program takes that of the bundle away.
    assert tcc("sign", bundle, "--runner-key", keys / "device.pem").code == 0
    assert not (bundle / "model.sig").exists()


def test_wrong_keys_and_options_are_refused(tcc, bundle, keys):
    assert code(tcc("sign", bundle)) == "2 E0601"
    assert (
        code(tcc("sign", bundle, "--runner-key", keys / "device.pem", "--release", "2"))
        == "2 E0601"
    )
    for key in ("device.pub", "maker.pem"):
        assert code(tcc("sign", bundle, "--runner-key", keys / key)) == "2 E1366"
    assert code(tcc("sign", bundle, "--runner-key", keys / "other.pem")) == "2 E1368"
    assert code(tcc("sign", bundle, "--runner-key", keys / "none.pem")) == "2 E0603"
    assert not (bundle / "model/tiny-run.sig").exists()
    build = ("build", "tiny.yaml", "--require-signature")
    for key in ("device.pem", "maker.pub"):
        assert code(tcc(*build, keys / key, "--target", "host")) == "2 E1366"
    ended = tcc(*build, keys / "device.pub", "--target", "host,onnxruntime")
    assert code(ended) == "2 E0601"
    assert "onnxruntime has no program that checks a signature" in ended.err


def test_a_program_that_checks_nothing_is_not_signed(tcc, built, keys):
    assert code(tcc("sign", built, "--runner-key", keys / "device.pem")) == "2 E1367"


def test_a_build_of_another_key_is_another_one_and_one_without_is_as_before(
    tcc, bundle, keys, home, built_for_host
):
    first = (bundle / "model/tiny-run").read_bytes()
    assert (
        tcc(
            "build", "tiny.yaml", "--target", "host", "--require-signature", keys / "other.pub"
        ).code
        == 0
    )
    assert (bundle / "model/tiny-run").read_bytes() != first
    assert tcc("build", "tiny.yaml", "--target", "host").code == 0
    names = {p.relative_to(bundle) for p in bundle.rglob("*") if p.is_file()}
    assert names == {
        p.relative_to(built_for_host) for p in built_for_host.rglob("*") if p.is_file()
    }
    for name in names:
        assert (bundle / name).read_bytes() == (built_for_host / name).read_bytes(), name


def draw(folder):
    """Write images of three classes, of shades of their own in each split."""
    for split, first in (("val", 0), ("test", 100)):
        for number, label in enumerate(3 * ("cat", "dog", "owl")):
            path = folder / split / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (first + 10 * number, number, first)).save(path)
    return folder


def test_what_is_fitted_has_to_be_signed_again(tcc, bundle, keys, home):
    assert tcc("sign", bundle, "--runner-key", keys / "device.pem").code == 0
    ended = tcc("eval", bundle, "--data", draw(home / "set"), "--fit")
    assert ended.code == 0, ended.err
    assert "`tcc sign BUNDLE --runner-key PRIVATE.pem`" in ended.err
    assert not (bundle / "model/tiny-run.sig").exists()
    program = [bundle / "model/tiny-run", "--describe"]
    assert subprocess.run(program, capture_output=True, check=False).returncode == 3
    assert tcc("sign", bundle, "--runner-key", keys / "device.pem").code == 0
    assert subprocess.run(program, capture_output=True, check=False).returncode == 0
