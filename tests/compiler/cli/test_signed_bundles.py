"""Signed bundles: every command refuses invalid signatures and untrusted keys."""

import json
import os
import subprocess
import sys
from pathlib import Path

import forged_bundles
import pytest

pytest.importorskip("cryptography")

COMMANDS = {
    "run": lambda tcc, folder, picture: tcc("run", folder, picture),
    "run --trust": lambda tcc, folder, picture: tcc("run", folder, picture, "--trust"),
    "verify": lambda tcc, folder, _: tcc("verify", folder),
    "verify --trust": lambda tcc, folder, _: tcc("verify", folder, "--trust"),
    "eval": lambda tcc, folder, _: tcc("eval", folder, "--data", "set"),
    "eval --fit": lambda tcc, folder, _: tcc("eval", folder, "--data", "set", "--fit"),
    "bench": lambda tcc, folder, _: tcc("bench", folder),
    "show": lambda tcc, folder, _: tcc("show", folder),
    "serve": lambda tcc, folder, _: tcc("serve", folder, "--port", "0"),
    "plot confusion": lambda tcc, folder, _: tcc("plot", "confusion", folder, "--data", "set"),
    "plot tsne": lambda tcc, folder, _: tcc("plot", "tsne", folder, "--data", "set"),
    "plot scatter": lambda tcc, folder, _: tcc(
        "plot", "scatter", "tiny.yaml", folder, "--data", "set", "--seed", "0"
    ),
    "plot cosines": lambda tcc, folder, _: tcc("plot", "cosines", folder),
    "slide run": lambda tcc, folder, _: tcc(
        "slide", "run", folder, "one.png", "--at", "1", "-o", "out"
    ),
}
NETWORK = "tiny"


def write_key_pair(folder: Path, name: str) -> None:
    """Write the two files of a key pair."""
    args = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"]
    subprocess.run([*args, "-out", folder / f"{name}.pem"], check=True, capture_output=True)
    args = ["openssl", "ec", "-in", folder / f"{name}.pem", "-pubout"]
    subprocess.run([*args, "-out", folder / f"{name}.pub"], check=True, capture_output=True)


@pytest.fixture
def signed_bundle(tcc, built, home, monkeypatch) -> Path:
    """A signed bundle with a key trusted for its network, and another key pair."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    for name in ("maker", "other"):
        write_key_pair(home, name)
    assert tcc("sign", built, "--key", "maker.pem").code == 0
    assert tcc("trust", "add", "maker.pub", "--for", NETWORK).code == 0
    return built


def swap_labels(folder: Path) -> None:
    """Swap two labels, and update hashes and seal as a forger would."""
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"cat"', '"?"').replace('"dog"', '"cat"'))
    path.write_text(path.read_text().replace('"?"', '"dog"'))
    manifest_json = json.loads(path.read_text())
    from tcc.compiler.support import json_records

    manifest_json["seal"] = json_records.seal(manifest_json)
    path.write_text(json.dumps(manifest_json, indent=2))


def format_code(outcome) -> str:
    return f"{outcome.code} {outcome.err.partition('[')[2][:5]}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_swapped_labels(command, tcc, signed_bundle, picture, images):
    swap_labels(signed_bundle)
    outcome = COMMANDS[command](tcc, signed_bundle, picture)
    assert format_code(outcome) == "2 E1352", outcome.err
    assert "manifest.json was changed after signing" in outcome.err
    assert f"--> {signed_bundle}/model.sig" in outcome.err


@pytest.mark.parametrize("command", [name for name in COMMANDS if "--trust" not in name])
def test_every_command_refuses_an_untrusted_key(command, tcc, signed_bundle, picture, images):
    assert tcc("sign", signed_bundle, "--key", "other.pem").code == 0
    outcome = COMMANDS[command](tcc, signed_bundle, picture)
    assert format_code(outcome) == "2 E1354", outcome.err
    assert "tcc trust add" in outcome.err


@pytest.mark.parametrize("command", ["run", "verify", "eval", "show", "plot confusion"])
def test_valid_signature_is_accepted(command, tcc, signed_bundle, picture, images):
    outcome = COMMANDS[command](tcc, signed_bundle, picture)
    assert outcome.code == 0, outcome.err


def test_python_functions_refuse_changed_bundles(tcc, signed_bundle, picture, images):
    import tcc as package
    from tcc.compiler.support.diagnostics import UserError

    package.run(signed_bundle, [picture])
    swap_labels(signed_bundle)
    for call in (
        lambda: package.run(signed_bundle, [picture]),
        lambda: package.run(signed_bundle, [picture], trust=True),
        lambda: package.verify(signed_bundle),
        lambda: package.evaluate(signed_bundle, images),
    ):
        with pytest.raises(UserError, match="E1352"):
            call()


def test_trust_option_accepts_an_unknown_key_but_no_change(tcc, signed_bundle, picture):
    assert tcc("sign", signed_bundle, "--key", "other.pem").code == 0
    assert tcc("run", signed_bundle, picture, "--trust").code == 0
    (signed_bundle / "more.txt").write_text("")
    assert format_code(tcc("run", signed_bundle, picture, "--trust")) == "2 E1352"


def test_removed_signature_is_detected(tcc, signed_bundle, picture):
    """A key is trusted for the network by name, so its bundles must be signed or built here."""
    (signed_bundle / "model.sig").unlink()
    assert format_code(tcc("run", signed_bundle, picture)) == "2 E1351"
    swap_labels(signed_bundle)
    assert format_code(tcc("run", signed_bundle, picture)) == "2 E1351"
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    assert tcc("run", signed_bundle, picture).code == 0
    swap_labels(signed_bundle)
    assert format_code(tcc("run", signed_bundle, picture)) == "2 E1351"


def test_older_unsigned_bundle_is_refused_with_a_fix(tcc, built, picture, home, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    write_key_pair(home, "maker")
    added = tcc("trust", "add", "maker.pub", "--for", "tiny")
    assert (
        "bundles of tiny without a signature are now refused, unless this machine builds"
        in added.err
    )
    assert "still run" not in added.err
    assert "are accepted, except those of tiny" in tcc("trust", "list").out
    outcome = tcc("run", built, picture)
    assert format_code(outcome) == "2 E1351"
    assert "you trust a key for `tiny`, so its bundles must be signed" in outcome.err
    assert "`tcc sign BUNDLE --key PRIVATE.pem`, or build it here" in outcome.err
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    assert tcc("run", built, picture).code == 0


@pytest.mark.parametrize("command", [("verify", "--key"), ("sign", "--key")])
def test_missing_key_file_is_named_with_its_option(command, tcc, built):
    outcome = tcc(command[0], built, command[1], "nope.pem")
    assert format_code(outcome) == "2 E0603"
    assert "given by --key: No such file" in outcome.err
    assert "--> nope.pem" in outcome.err


def test_bundle_fitted_here_needs_no_signature(tcc, signed_bundle, picture, images):
    outcome = tcc("eval", signed_bundle, "--data", images, "--fit")
    assert "E13" not in outcome.err
    assert not (signed_bundle / "model.sig").exists() or outcome.code
    if not outcome.code:
        assert tcc("run", signed_bundle, picture).code == 0


def test_signatures_can_be_required(tcc, built, picture, home, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    assert tcc("run", built, picture).code == 0
    assert tcc("trust", "require", "on").code == 0
    for args in (("run", built, picture), ("run", built, picture, "--trust"), ("show", built)):
        outcome = tcc(*args)
        assert format_code(outcome) == "2 E1351"
        assert "trust.json requires a signature" in outcome.err
    # Building and signing need none. Neither does Python, which reads its own bundle again.
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    write_key_pair(home, "maker")
    assert tcc("sign", built, "--key", "maker.pem").code == 0
    assert format_code(tcc("run", built, picture, "--trust")) == "2 E1354"
    assert tcc("trust", "add", "maker.pub").code == 0
    assert tcc("run", built, picture).code == 0
    assert tcc("trust", "require", "off").code == 0
    (built / "model.sig").unlink()
    assert tcc("run", built, picture).code == 0


def test_project_can_require_signatures(tcc, built, picture, home):
    (home / "tcc.toml").write_text("require_signature = true\n")
    outcome = tcc("run", built, picture)
    assert format_code(outcome) == "2 E1351"
    assert "tcc.toml requires a signature" in outcome.err
    (home / "tcc.toml").write_text("require_signature = false\n")
    assert tcc("run", built, picture).code == 0
    (home / "tcc.toml").write_text("require_signature = 1\n")
    assert format_code(tcc("run", built, picture)) == "2 E0613"


def test_key_is_trusted_only_for_named_networks(tcc, signed_bundle, picture):
    assert tcc("trust", "add", "maker.pub", "--for", "lung", "--for", "skin").code == 0
    outcome = tcc("run", signed_bundle, picture)
    assert format_code(outcome) == "2 E1355"
    assert "lung, skin" in outcome.err
    assert tcc("trust", "add", "maker.pub").code == 0
    assert tcc("run", signed_bundle, picture).code == 0


@pytest.mark.parametrize(
    ("day", "is_accepted"), [("2020-01-31", False), ("9999-12-31", True)], ids=["over", "ahead"]
)
def test_key_is_trusted_until_its_expiry_date(day, is_accepted, tcc, signed_bundle, picture):
    assert tcc("trust", "add", "maker.pub", "--expires", day).code == 0
    outcome = tcc("run", signed_bundle, picture)
    assert format_code(outcome) == ("0 " if is_accepted else "2 E1356"), outcome.err
    # Naming the key does not extend its expiry date.
    assert (tcc("verify", signed_bundle, "--key", "maker.pub").code == 0) is is_accepted


@pytest.mark.parametrize("day", ["2020-1-3", "tomorrow", "20200103", "2020-02-30", ""])
def test_invalid_dates_are_refused(day, tcc, signed_bundle):
    assert format_code(tcc("trust", "add", "maker.pub", "--expires", day)) == "2 E0601"


def test_revoked_key_stays_revoked(tcc, signed_bundle, picture):
    assert tcc("trust", "revoke", "maker.pub").code == 0
    for args in (("run", signed_bundle, picture), ("run", signed_bundle, picture, "--trust")):
        assert format_code(tcc(*args)) == "2 E1357"
    assert format_code(tcc("verify", signed_bundle, "--key", "maker.pub")) == "2 E1357"
    assert format_code(tcc("trust", "add", "maker.pub")) == "2 E1357"
    # A signature that names another key does not help.
    path = signed_bundle / "model.sig"
    signature_json = json.loads(path.read_text())
    signature_json["verificationMaterial"]["publicKey"]["hint"] = "0" * 64
    path.write_text(json.dumps(signature_json))
    assert format_code(tcc("verify", signed_bundle, "--key", "maker.pub")) == "2 E1357"


def test_key_is_revoked_by_its_fingerprint(tcc, signed_bundle, picture):
    (key,) = tcc("trust", "list", "--json").document["keys"]
    assert format_code(tcc("trust", "revoke", "0" * 16)) == "2 E1364"
    assert tcc("trust", "revoke", key["fingerprint"][:16]).code == 0
    assert format_code(tcc("run", signed_bundle, picture)) == "2 E1357"
    assert f"{key['fingerprint'][:16]}  revoked" in tcc("trust", "list").out


def test_trust_without_a_subcommand_shows_the_list(tcc, signed_bundle):
    assert tcc("trust").out == tcc("trust", "list").out
    assert tcc("trust", "--json").document == tcc("trust", "list", "--json").document
    assert (
        "tiny\nbundles without a signature are accepted, except those of tiny\n" in tcc("trust").out
    )
    assert format_code(tcc("trust", "--json", "list")) == "2 E0601"


def test_older_release_is_refused(tcc, signed_bundle, picture):
    run = ("run", signed_bundle, picture)
    old = (signed_bundle / "model.sig").read_bytes()
    assert tcc(*run).code == 0
    assert tcc("sign", signed_bundle, "--key", "maker.pem", "--release", "3").code == 0
    assert tcc(*run).code == 0
    (signed_bundle / "model.sig").write_bytes(old)
    outcome = tcc(*run)
    assert format_code(outcome) == "2 E1358"
    assert "release 1 of `tiny`" in outcome.err
    assert "release 3 was seen here" in outcome.err
    assert tcc("sign", signed_bundle, "--key", "maker.pem", "--release", "3").code == 0
    assert tcc(*run).code == 0
    # Another key has its own release numbers.
    assert tcc("trust", "add", "other.pub").code == 0
    assert tcc("sign", signed_bundle, "--key", "other.pem").code == 0
    assert tcc(*run).code == 0


def test_minimum_release_can_be_set(tcc, signed_bundle, picture):
    assert tcc("trust", "add", "maker.pub", "--min-release", "2").code == 0
    assert format_code(tcc("run", signed_bundle, picture)) == "2 E1358"
    assert tcc("sign", signed_bundle, "--key", "maker.pem", "--release", "2").code == 0
    assert tcc("run", signed_bundle, picture).code == 0


def test_release_that_cannot_be_recorded_is_refused(tcc, signed_bundle, picture, home):
    (home / "state/tcc/releases").mkdir(parents=True)
    (home / "state/tcc/releases").chmod(0o777)
    outcome = tcc("run", signed_bundle, picture)
    assert format_code(outcome) == "2 E1359", outcome.err
    assert tcc("trust", "add", "maker.pub", "--min-release", "1").code == 0
    assert tcc("run", signed_bundle, picture).code == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config: (config / "tcc").chmod(0o777),
        lambda config: (config / "tcc").chmod(0o770),
        lambda config: (config / "tcc/trust.json").chmod(0o666),
        lambda config: config.chmod(0o777),
        lambda config: os.chown(config / "tcc", 65534, 65534),
        lambda config: os.chown(config / "tcc/trust.json", 65534, 65534),
        lambda config: os.chown(config, 65534, 65534),
        lambda config: (config / "tcc/trust.json").write_text("{}"),
        lambda config: (config / "tcc/trust.json").write_text("["),
        lambda config: (config / "tcc/trust.json").write_bytes(b"\xff"),
        lambda config: (config / "tcc/trust.json").write_bytes(b" " * (2 << 20)),
    ],
)
def test_trust_list_writable_by_others_is_refused(spoil, tcc, signed_bundle, picture, home):
    if os.getuid() and "chown" in spoil.__code__.co_names:
        pytest.skip("needs root to create files of another user")
    spoil(home / "config")
    for args in (("run", signed_bundle, picture), ("run", signed_bundle, picture, "--trust")):
        assert format_code(tcc(*args)) == "2 E1360"


def test_damaged_trust_list_is_refused(tcc, signed_bundle, picture, home):
    path = home / "config/tcc/trust.json"
    trust_json = json.loads(path.read_text())
    for key, wrong_value in (
        ("require", 0), ("keys", {}), ("keys", [{}]), ("revoked", [1]), ("tcc_trust", 2),
        ("tcc_trust", True), ("folders", "x"),
    ):  # fmt: skip
        path.write_text(json.dumps(trust_json | {key: wrong_value}))
        assert format_code(tcc("run", signed_bundle, picture)) == "2 E1360", (key, wrong_value)
    for key, wrong_value in (
        ("expires", "soon"), ("networks", "tiny"), ("min_release", "1"), ("fingerprint", 7),
        ("pem", None),
    ):  # fmt: skip
        path.write_text(
            json.dumps(trust_json | {"keys": [trust_json["keys"][0] | {key: wrong_value}]})
        )
        assert format_code(tcc("run", signed_bundle, picture)) == "2 E1360", (key, wrong_value)
    # The PEM text of another key with a trusted fingerprint.
    other_trust = json.loads((home / "config/tcc/trust.json").read_text())
    assert other_trust
    tcc("trust", "list")
    path.write_text(json.dumps(trust_json))
    assert tcc("trust", "add", "other.pub").code == 0
    both = json.loads(path.read_text())
    both["keys"][0]["pem"] = both["keys"][1]["pem"]
    path.write_text(json.dumps(both))
    assert format_code(tcc("run", signed_bundle, picture)) == "2 E1360"


def test_openssf_tool_verifies_the_signature(tcc, signed_bundle, home):
    verifying = pytest.importorskip("model_signing").verifying
    config = verifying.Config().use_elliptic_key_verifier(public_key=home / "maker.pub")
    config.verify(signed_bundle, signed_bundle / "model.sig")
    (signed_bundle / "model-card.md").write_text("another")
    with pytest.raises(ValueError, match="Hash mismatch"):
        config.verify(signed_bundle, signed_bundle / "model.sig")


def test_signature_of_the_openssf_tool_is_accepted(tcc, signed_bundle, home, picture):
    signing = pytest.importorskip("model_signing").signing
    (signed_bundle / "model.sig").unlink()
    config = signing.Config().use_elliptic_key_signer(private_key=home / "maker.pem")
    config.sign(signed_bundle, home / "model.sig")
    (home / "model.sig").rename(signed_bundle / "model.sig")
    assert tcc("run", signed_bundle, picture).code == 0
    swap_labels(signed_bundle)
    assert format_code(tcc("run", signed_bundle, picture)) == "2 E1352"


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1"])
def test_other_curves_are_accepted(curve, tcc, signed_bundle, home, picture):
    verifying = pytest.importorskip("model_signing").verifying
    args = ["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", "big.pem"]
    subprocess.run(args, check=True, capture_output=True)
    args = ["openssl", "ec", "-in", "big.pem", "-pubout", "-out", "big.pub"]
    subprocess.run(args, check=True, capture_output=True)
    assert tcc("sign", signed_bundle, "--key", "big.pem").code == 0
    assert tcc("trust", "add", "big.pub").code == 0
    assert tcc("run", signed_bundle, picture).code == 0
    config = verifying.Config().use_elliptic_key_verifier(public_key=home / "big.pub")
    config.verify(signed_bundle, signed_bundle / "model.sig")


def test_only_the_program_of_a_trusted_maker_runs(
    tcc, untrusted_bundle, home, picture, monkeypatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    write_key_pair(home, "maker")
    assert tcc("sign", untrusted_bundle, "--key", "maker.pem").code == 0
    assert tcc("trust", "add", "maker.pub").code == 0
    assert "E0652" in tcc("run", untrusted_bundle, picture).err  # it ran, and it is not a network
    (home / "ran").unlink()
    program = untrusted_bundle / "model/tiny-run"
    program.write_text(program.read_text() + "# more\n")
    forged_bundles.forge_bundle(untrusted_bundle, "host")
    assert format_code(tcc("run", untrusted_bundle, picture)) == "2 E1352"
    assert not (home / "ran").exists()


def test_signature_check_imports_only_what_it_needs(signed_bundle, process):
    """The modules for signing and for other key types take longer to load than all the rest."""
    program = (
        "import sys, tcc.compiler.cli\n"
        "try: tcc.compiler.cli.main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    outcome = process("show", signed_bundle, program=program)
    assert outcome.code == 0
    loaded = set(outcome.err.split())
    assert "cryptography.hazmat.primitives.asymmetric.ec" in loaded
    assert not {"model_signing", "cryptography.hazmat.primitives.serialization.ssh"} & loaded
    assert sys.executable
