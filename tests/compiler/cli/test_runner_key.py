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
        run_openssl("genpkey", "-algorithm", "ed25519", "-out", private)
        run_openssl("pkey", "-in", private, "-pubout", "-out", public)
    run_openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "maker.pem")
    run_openssl("ec", "-in", folder / "maker.pem", "-pubout", "-out", folder / "maker.pub")
    return folder


def run_openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


@pytest.fixture
def bundle(tcc, home, state, keys):
    outcome = tcc(
        "build", "tiny.yaml", "--target", "host", "--require-signature", keys / "device.pub"
    )
    assert outcome.code == 0, outcome.err
    assert "its program starts only after you sign it: `tcc sign BUNDLE --runner-key" in outcome.out
    assert "agrees with the reference" in outcome.out
    return home / "build/tiny-host-fp32"


def format_code(outcome):
    return f"{outcome.code} {outcome.err.partition('error[')[2][:5]}".strip()


def test_bundle_runs_after_its_program_is_signed(tcc, bundle, keys, picture):
    for args in (("run", bundle, picture), ("verify", bundle)):
        outcome = tcc(*args)
        assert "E1365" in outcome.err, (args, outcome)
        assert "tcc sign BUNDLE --runner-key PRIVATE.pem" in outcome.err
        assert outcome.code == 2
    outcome = tcc("sign", bundle, "--runner-key", keys / "device.pem")
    assert (outcome.code, outcome.out) == (0, f"{bundle}/model/tiny-run.sig\n"), outcome.err
    assert tcc("run", bundle, picture).code == 0
    verified = tcc("verify", bundle, "--json")
    assert verified.code == 0, verified.err
    archive, shared = verified.document["bundles"][0]["libraries"]
    assert archive["same_bytes"] == "a program linked with it equals tiny-run"
    assert (shared["holds"], len(shared["agreement"])) == (True, 2)
    second_outcome = tcc("sign", bundle, "--runner-key", keys / "device.pem")
    assert second_outcome.code == 0


def test_bundle_has_the_key_and_lists_the_crypto_library(bundle, keys):
    assert (bundle / "model/tiny-run.pem").read_bytes() == (keys / "device.pub").read_bytes()
    bill = json.loads((bundle / "bom.cdx.json").read_text())
    libraries = {component["name"]: component.get("version") for component in bill["components"]}
    assert libraries["monocypher"] == "4.0.3"
    assert "tiny-run.sig" in (bundle / "model/README.txt").read_text()
    assert "Monocypher" in (bundle / "model/src/LICENCE-monocypher.txt").read_text()


def test_resealed_bundle_with_a_wrong_signature_is_refused(tcc, bundle, keys, picture):
    assert tcc("sign", bundle, "--runner-key", keys / "device.pem").code == 0
    signature = bundle / "model/tiny-run.sig"
    signature.write_bytes(bytes(64))
    assert format_code(tcc("run", bundle, picture)) == "2 E0622"
    forged_bundles.forge_bundle(bundle, "host")
    assert format_code(tcc("run", bundle, picture, "--trust")) == "2 E1365"


@pytest.mark.slow
def test_both_signatures_are_written_in_order(tcc, bundle, keys, picture, monkeypatch, home):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    assert format_code(tcc("sign", bundle, "--key", keys / "maker.pem")) == "2 E1369"
    both = ("--runner-key", keys / "device.pem", "--key", keys / "maker.pem")
    outcome = tcc("sign", bundle, *both)
    assert outcome.out == f"{bundle}/model/tiny-run.sig\n{bundle}/model.sig\n", outcome.err
    assert tcc("trust", "add", keys / "maker.pub").code == 0
    assert tcc("run", bundle, picture).code == 0
    # The program's signature already exists.
    assert tcc("sign", bundle, "--key", keys / "maker.pem").code == 0
    # Signing the program removes the earlier signature of the bundle.
    assert tcc("sign", bundle, "--runner-key", keys / "device.pem").code == 0
    assert not (bundle / "model.sig").exists()


def test_wrong_keys_and_options_are_refused(tcc, bundle, keys):
    assert format_code(tcc("sign", bundle)) == "2 E0601"
    assert (
        format_code(tcc("sign", bundle, "--runner-key", keys / "device.pem", "--release", "2"))
        == "2 E0601"
    )
    for key in ("device.pub", "maker.pem"):
        assert format_code(tcc("sign", bundle, "--runner-key", keys / key)) == "2 E1366"
    assert format_code(tcc("sign", bundle, "--runner-key", keys / "other.pem")) == "2 E1368"
    assert format_code(tcc("sign", bundle, "--runner-key", keys / "none.pem")) == "2 E0603"
    assert not (bundle / "model/tiny-run.sig").exists()
    build = ("build", "tiny.yaml", "--require-signature")
    for key in ("device.pem", "maker.pub"):
        assert format_code(tcc(*build, keys / key, "--target", "host")) == "2 E1366"
    outcome = tcc(*build, keys / "device.pub", "--target", "host,onnxruntime")
    assert format_code(outcome) == "2 E0601"
    assert "onnxruntime have no program that checks a signature" in outcome.err


def test_program_without_signature_check_is_not_signed(tcc, built, keys):
    assert format_code(tcc("sign", built, "--runner-key", keys / "device.pem")) == "2 E1367"


@pytest.mark.slow
def test_the_key_changes_the_program_and_no_key_gives_the_old_bytes(
    tcc, bundle, keys, home, built_for_host
):
    program_before = (bundle / "model/tiny-run").read_bytes()
    assert (
        tcc(
            "build", "tiny.yaml", "--target", "host", "--require-signature", keys / "other.pub"
        ).code
        == 0
    )
    assert (bundle / "model/tiny-run").read_bytes() != program_before
    assert tcc("build", "tiny.yaml", "--target", "host").code == 0
    names = {p.relative_to(bundle) for p in bundle.rglob("*") if p.is_file()}
    assert names == {
        p.relative_to(built_for_host) for p in built_for_host.rglob("*") if p.is_file()
    }
    for name in names:
        assert (bundle / name).read_bytes() == (built_for_host / name).read_bytes(), name


def draw(folder):
    """Write images of three classes, with other shades in each split."""
    for split, base_shade in (("val", 0), ("test", 100)):
        for number, label in enumerate(3 * ("cat", "dog", "owl")):
            path = folder / split / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (base_shade + 10 * number, number, base_shade)).save(path)
    return folder


@pytest.mark.slow
def test_fitted_program_must_be_signed_again(tcc, bundle, keys, home):
    assert tcc("sign", bundle, "--runner-key", keys / "device.pem").code == 0
    outcome = tcc("eval", bundle, "--data", draw(home / "set"), "--fit")
    assert outcome.code == 0, outcome.err
    assert "`tcc sign BUNDLE --runner-key PRIVATE.pem`" in outcome.err
    assert not (bundle / "model/tiny-run.sig").exists()
    program = [bundle / "model/tiny-run", "--describe"]
    assert subprocess.run(program, capture_output=True, check=False).returncode == 3
    assert tcc("sign", bundle, "--runner-key", keys / "device.pem").code == 0
    assert subprocess.run(program, capture_output=True, check=False).returncode == 0
