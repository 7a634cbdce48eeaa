"""The libraries for integrators: `tcc verify` links a program with them and runs it."""

import shutil

import forged_bundles
import pytest

from tcc.backends.arm import backend as arm_backend

GARBAGE = b"!<arch>\nnot an archive of anything"


@pytest.fixture
def bundle(built_for_host, home, state):
    """A copy of a bundle for this machine that a test may change."""
    return shutil.copytree(built_for_host, home / "tiny-host-fp32")


@pytest.fixture
def cross(tcc, home):
    """A bundle for a Cortex-A7. This machine cannot load its shared library."""
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    outcome = tcc("build", "tiny.yaml", "--target", "arm-a7", "-q")
    if outcome.code == 3 or not shutil.which("qemu-arm"):
        pytest.skip("needs qemu-arm")
    return home / "build/tiny-arm-a7-fp32"


def reseal(folder, target="host"):
    """Make the bundle consistent with its files again, as a forger would."""
    return forged_bundles.forge_bundle(folder, target)


def change_weight(path, weight):
    """Change the last byte of a byte sequence in a file."""
    data = bytearray(path.read_bytes())
    at = bytes(data).index(weight)
    data[at + len(weight) - 1] ^= 0x40
    path.write_bytes(data)


def read_weights(folder):
    """Return bytes of the convolution's weights as stored in the libraries."""
    data = (folder / "model/libtiny.so").read_bytes()
    program = (folder / "model/tiny-run").read_bytes()
    for start in range(0, len(data) - 64, 64):
        chunk = data[start : start + 64]
        # A chunk that both files have once, and that is not code, is a constant.
        if len(set(chunk)) > 40 and data.count(chunk) == program.count(chunk) == 1:
            return chunk
    raise AssertionError("no constants")


def test_both_libraries_are_verified(tcc, bundle):
    outcome = tcc("verify", bundle, "--trust", "--json")
    assert outcome.code == 0, outcome.err
    archive, shared = outcome.document["bundles"][0]["libraries"]
    assert (archive["file"], archive["holds"]) == ("libtiny.a", True)
    assert archive["same_bytes"] == "a program linked with it equals tiny-run"
    assert (shared["file"], shared["holds"], len(shared["agreement"])) == ("libtiny.so", True, 2)


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so", "src/runner.c"])
def test_changed_library_is_not_run_without_trust(tcc, bundle, picture, file):
    """The program is known, but the libraries for integrators are changed."""
    assert tcc("verify", bundle, "--trust").code == 0
    (bundle / "model" / file).write_bytes(GARBAGE)
    reseal(bundle)
    for command in (("run", bundle, picture), ("verify", bundle)):
        outcome = tcc(*command)
        assert outcome.code == 2
        assert "error[E1350]" in outcome.err
        assert file in outcome.err


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so"])
def test_invalid_library_is_reported(tcc, bundle, file):
    (bundle / "model" / file).write_bytes(GARBAGE)
    reseal(bundle)
    outcome = tcc("verify", bundle, "--trust")
    assert outcome.code == 4
    assert f"{file} does not match its goldens: no program links with it" in outcome.err


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so", "src/runner.c"])
def test_missing_library_file_is_reported(tcc, bundle, file):
    (bundle / "model" / file).unlink()
    reseal(bundle)
    outcome = tcc("verify", bundle, "--trust")
    assert outcome.code == 4
    assert f"{file} is missing from the artifact" in outcome.err


def test_missing_header_is_reported(tcc, bundle):
    (bundle / "model/tiny.h").unlink()
    reseal(bundle)
    outcome = tcc("verify", bundle, "--trust")
    assert outcome.code == 2
    assert "error[E0652]: no C header in this folder declares the network" in outcome.err


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so"])
def test_library_with_another_weight_is_detected(tcc, bundle, file):
    change_weight(bundle / "model" / file, read_weights(bundle))
    reseal(bundle)
    outcome = tcc("verify", bundle, "--trust")
    assert outcome.code == 4, outcome.out
    assert (
        f"{file} does not match its goldens: a test program linked with it differs" in outcome.err
    )


@pytest.mark.slow
def test_library_for_another_processor_is_compared_by_bytes(tcc, cross):
    outcome = tcc("verify", cross)
    assert outcome.code == 0, outcome.err
    assert (
        "libtiny.so: it equals the library linked from the object in libtiny.a, byte for byte"
        in outcome.out
    )
    change_weight(cross / "model/libtiny.so", read_weights(cross))
    reseal(cross, "arm-a7")
    outcome = tcc("verify", cross, "--trust")
    assert outcome.code == 4, outcome.out
    assert "libtiny.so does not match its goldens" in outcome.err


def test_missing_linker_is_reported(tcc, bundle, monkeypatch):
    original_version = arm_backend.installed_version
    monkeypatch.setattr(
        arm_backend, "installed_version", lambda n: None if n == "ziglang" else original_version(n)
    )
    outcome = tcc("verify", bundle, "--trust")
    assert outcome.code == 0, outcome.err
    for file in ("libtiny.a", "libtiny.so"):
        assert (
            f"{file} not verified: ziglang, which links programs, is not installed" in outcome.err
        )
    libraries = tcc("verify", bundle, "--trust", "--json").document["bundles"][0]["libraries"]
    assert [library["holds"] for library in libraries] == [None, None]
