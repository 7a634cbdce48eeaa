"""Signatures of bundles: who signed, and that every change is detected."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("cryptography")


@pytest.fixture
def keys(home, monkeypatch) -> Path:
    """Two key pairs, and an empty list of trusted keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    for name in ("private", "other"):
        pair = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"]
        subprocess.run([*pair, "-out", home / f"{name}.pem"], check=True, capture_output=True)
        public = ["openssl", "ec", "-in", home / f"{name}.pem", "-pubout"]
        subprocess.run([*public, "-out", home / f"{name}.pub"], check=True, capture_output=True)
    return home


def read_contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_signature_is_a_separate_file(tcc, built, keys):
    files_before = read_contents(built)
    assert tcc("sign", built, "--key", "private.pem").out == f"{built}/model.sig\n"
    files_after = read_contents(built)
    assert files_after.pop("model.sig").startswith(
        b'{"mediaType":"application/vnd.dev.sigstore.bundle'
    )
    assert files_after == files_before
    outcome = tcc("verify", built, "--key", "private.pub")
    assert outcome.code == 0, outcome.err
    assert f"signed by private.pub: {built}" in outcome.out
    # A user trusts the key or gives it. A new build replaces a signed bundle.
    outcome = tcc("verify", built)
    assert (outcome.code, "error[E1354]" in outcome.err) == (2, True)
    assert tcc("trust", "add", "private.pub").code == 0
    assert tcc("verify", built).code == 0
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime").code == 0
    assert read_contents(built) == files_before


def test_missing_wrong_or_invalid_signatures_are_refused(tcc, built, keys):
    def code(*args: str) -> tuple[int, bool]:
        outcome = tcc("verify", built, "--key", *args[:1])
        return outcome.code, f"error[{args[1]}]" in outcome.err

    assert code("private.pub", "E1351") == (2, True)
    assert tcc("sign", built, "--key", "private.pem").code == 0
    assert code("other.pub", "E1352") == (2, True)
    assert code("private.pem", "E1353") == (2, True)
    assert code("tiny.yaml", "E1353") == (2, True)
    assert code("nothing.pem", "E0603") == (2, True)
    signed = (built / "model.sig").read_bytes()
    for damaged in (
        b"",
        b"{}",
        signed[:-40],
        signed.replace(b'"sig":"M', b'"sig":"N'),
        b"[" * 9999,
    ):
        (built / "model.sig").write_bytes(damaged)
        assert code("private.pub", "E1352") == (2, True)
    (built / "model.sig").write_bytes(signed)
    (built / "goldens/more.txt").write_text("")
    assert code("private.pub", "E1352") == (2, True)
    (built / "goldens/more.txt").unlink()
    assert tcc("verify", built, "--key", "private.pub").code == 0


@pytest.mark.parametrize("command", ["sign", "verify"])
def test_missing_key_file_is_reported_first(command, tcc, built, home):
    """The bundle is not signed either, but that must not hide the missing key."""
    outcome = tcc(command, built, "--key", "nothing.pem")
    assert outcome.code == 2
    assert "error[E0603]" in outcome.err
    assert "nothing.pem" in outcome.err
    assert "E1351" not in outcome.err


KINDS = {
    "rsa": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    "edwards": ["genpkey", "-algorithm", "ed25519"],
    "koblitz": ["ecparam", "-name", "secp256k1", "-genkey", "-noout"],
    "old": ["ecparam", "-name", "sect163k1", "-genkey", "-noout"],
    "locked": ["genpkey", "-algorithm", "RSA", "-aes128", "-pass", "pass:word"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_unsupported_key_types_are_refused(tcc, built, keys, kind):
    completed = subprocess.run(["openssl", *KINDS[kind], "-out", "k.pem"], check=False, timeout=60)
    assert completed.returncode == 0
    public = ["openssl", "pkey", "-in", "k.pem", "-pubout", "-out", "k.pub", "-passin", "pass:word"]
    subprocess.run(public, check=True, timeout=60)
    assert tcc("sign", built, "--key", "private.pem").code == 0
    for command, key in (("sign", "k.pem"), ("verify", "k.pub")):
        outcome = tcc(command, built, "--key", key)
        assert outcome.code == 2, (command, outcome.err)
        assert "error[E1353]" in outcome.err
        assert f"--> {key}" in outcome.err
    assert tcc("verify", built, "--key", "private.pub").code == 0


def test_signature_of_another_bundle_is_refused(tcc, built, keys):
    tcc("sign", built, "--key", "private.pem")
    signed = (built / "model.sig").read_bytes()
    tcc("build", "tiny.yaml", "--target", "onnxruntime", "--seed", "1")
    (built / "model.sig").write_bytes(signed)
    outcome = tcc("verify", built, "--key", "private.pub")
    assert (outcome.code, "error[E1352]" in outcome.err) == (2, True)


def test_program_signed_by_a_trusted_key_runs(tcc, untrusted_bundle, keys, picture, home):
    trusted = home / "config/tcc/keys"
    trusted.mkdir(parents=True)
    assert tcc("sign", untrusted_bundle, "--key", "private.pem").code == 0
    assert "E1354" in tcc("run", untrusted_bundle, picture).err
    shutil.copy("other.pub", trusted / "other.pem")
    assert "E1354" in tcc("run", untrusted_bundle, picture).err
    shutil.copy("private.pub", trusted / "maker.pem")
    assert "E0652" in tcc("run", untrusted_bundle, picture).err  # it ran, and it is not a network
    assert (home / "ran").exists()
    trusted.chmod(0o777)  # others may have added a key
    assert "E1360" in tcc("run", untrusted_bundle, picture).err


@pytest.mark.parametrize("command", ["sign", "verify"])
def test_missing_signing_package_is_reported(command, tcc, built, keys, monkeypatch):
    from tcc.compiler.bundle import signing_key

    monkeypatch.setattr(signing_key, "PACKAGE", "cryptography_that_is_not_here")
    (built / "model.sig").write_bytes(b"{}")
    assert tcc(command, built, "--key", "private.pem").code == 3
