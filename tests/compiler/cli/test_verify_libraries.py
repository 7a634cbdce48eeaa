"""The libraries that integrators build with: `tcc verify` links with them, and runs what that gives."""

import shutil

import forged_bundles
import pytest

from tcc.backends.arm import backend as arm_backend

GARBAGE = b"!<arch>\nnot an archive of anything"


@pytest.fixture
def bundle(built_for_host, home, state):
    """A bundle for this machine whose files a test may change."""
    return shutil.copytree(built_for_host, home / "tiny-host-fp32")


@pytest.fixture
def cross(tcc, home):
    """A bundle for a Cortex-A7, whose shared library nothing here loads."""
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    outcome = tcc("build", "tiny.yaml", "--target", "arm-a7", "-q")
    if outcome.code == 3 or not shutil.which("qemu-arm"):
        pytest.skip("needs qemu-arm")
    return home / "build/tiny-arm-a7-fp32"


def reseal(folder, target="host"):
    """Make the bundle agree with its files again, as a forger would."""
    return forged_bundles.forge_bundle(folder, target)


def change_weight(path, weight):
    """Change the last byte of a run of bytes in a file."""
    data = bytearray(path.read_bytes())
    at = bytes(data).index(weight)
    data[at + len(weight) - 1] ^= 0x40
    path.write_bytes(data)


def read_weights(folder):
    """Return bytes of the convolution's weights, as they lie in the libraries."""
    data = (folder / "model/libtiny.so").read_bytes()
    program = (folder / "model/tiny-run").read_bytes()
    for start in range(0, len(data) - 64, 64):
        chunk = data[start : start + 64]
        # What both have once, and is not code, is among the constants.
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
def test_what_was_not_built_here_runs_in_no_command(tcc, bundle, picture, file):
    """The program that runs is the known one; what integrators link is not."""
    assert tcc("verify", bundle, "--trust").code == 0
    (bundle / "model" / file).write_bytes(GARBAGE)
    reseal(bundle)
    for command in (("run", bundle, picture), ("verify", bundle)):
        outcome = tcc(*command)
        assert outcome.code == 2
        assert "error[E1350]" in outcome.err
        assert file in outcome.err


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so"])
def test_garbage_in_place_of_a_library(tcc, bundle, file):
    (bundle / "model" / file).write_bytes(GARBAGE)
    reseal(bundle)
    outcome = tcc("verify", bundle, "--trust")
    assert outcome.code == 4
    assert f"{file} does not match its goldens: no program links with it" in outcome.err


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so", "src/runner.c"])
def test_a_file_that_is_left_out(tcc, bundle, file):
    (bundle / "model" / file).unlink()
    reseal(bundle)
    outcome = tcc("verify", bundle, "--trust")
    assert outcome.code == 4
    assert f"{file} is missing from the artifact" in outcome.err


def test_the_header_is_left_out(tcc, bundle):
    (bundle / "model/tiny.h").unlink()
    reseal(bundle)
    outcome = tcc("verify", bundle, "--trust")
    assert outcome.code == 2
    assert "error[E0652]: no C header in this folder declares the network" in outcome.err


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so"])
def test_a_library_with_another_weight(tcc, bundle, file):
    change_weight(bundle / "model" / file, read_weights(bundle))
    reseal(bundle)
    outcome = tcc("verify", bundle, "--trust")
    assert outcome.code == 4, outcome.out
    assert (
        f"{file} does not match its goldens: a test program linked with it differs" in outcome.err
    )


@pytest.mark.slow
def test_a_library_that_nothing_here_loads(tcc, cross):
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


def test_no_linker_is_reported(tcc, bundle, monkeypatch):
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
