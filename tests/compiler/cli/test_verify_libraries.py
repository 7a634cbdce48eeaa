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
    ended = tcc("build", "tiny.yaml", "--target", "arm-a7", "-q")
    if ended.code == 3 or not shutil.which("qemu-arm"):
        pytest.skip("needs qemu-arm")
    return home / "build/tiny-arm-a7-fp32"


def reseal(folder, target="host"):
    """Make the bundle agree with its files again, as a forger would."""
    return forged_bundles.forged(folder, target)


def change_weight(path, weight):
    """Change the last byte of a run of bytes in a file."""
    data = bytearray(path.read_bytes())
    at = bytes(data).index(weight)
    data[at + len(weight) - 1] ^= 0x40
    path.write_bytes(data)


def weights_of(folder):
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
    ended = tcc("verify", bundle, "--trust", "--json")
    assert ended.code == 0, ended.err
    archive, shared = ended.document["bundles"][0]["libraries"]
    assert (archive["file"], archive["holds"]) == ("libtiny.a", True)
    assert archive["same_bytes"] == "a program linked with it is tiny-run"
    assert (shared["file"], shared["holds"], len(shared["agreement"])) == ("libtiny.so", True, 2)


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so", "src/runner.c"])
def test_what_was_not_built_here_runs_in_no_command(tcc, bundle, picture, file):
    """The program that runs is the known one; what integrators link is not."""
    assert tcc("verify", bundle, "--trust").code == 0
    (bundle / "model" / file).write_bytes(GARBAGE)
    reseal(bundle)
    for command in (("run", bundle, picture), ("verify", bundle)):
        ended = tcc(*command)
        assert ended.code == 2
        assert "error[E1350]" in ended.err
        assert file in ended.err


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so"])
def test_garbage_in_place_of_a_library(tcc, bundle, file):
    (bundle / "model" / file).write_bytes(GARBAGE)
    reseal(bundle)
    ended = tcc("verify", bundle, "--trust")
    assert ended.code == 4
    assert f"{file} is not what its goldens are of: no program links with it" in ended.err


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so", "src/runner.c"])
def test_a_file_that_is_left_out(tcc, bundle, file):
    (bundle / "model" / file).unlink()
    reseal(bundle)
    ended = tcc("verify", bundle, "--trust")
    assert ended.code == 4
    assert f"{file} is not in the artifact" in ended.err


def test_the_header_is_left_out(tcc, bundle):
    (bundle / "model/tiny.h").unlink()
    reseal(bundle)
    ended = tcc("verify", bundle, "--trust")
    assert ended.code == 2
    assert "error[E0652]: no header here names the network" in ended.err


@pytest.mark.parametrize("file", ["libtiny.a", "libtiny.so"])
def test_a_library_with_another_weight(tcc, bundle, file):
    change_weight(bundle / "model" / file, weights_of(bundle))
    reseal(bundle)
    ended = tcc("verify", bundle, "--trust")
    assert ended.code == 4, ended.out
    assert f"{file} is not what its goldens are of: a program that uses it differs" in ended.err


@pytest.mark.slow
def test_a_library_that_nothing_here_loads(tcc, cross):
    ended = tcc("verify", cross)
    assert ended.code == 0, ended.err
    assert "libtiny.so: it is what the object in libtiny.a links to, byte for byte" in ended.out
    change_weight(cross / "model/libtiny.so", weights_of(cross))
    reseal(cross, "arm-a7")
    ended = tcc("verify", cross, "--trust")
    assert ended.code == 4, ended.out
    assert "libtiny.so is not what its goldens are of" in ended.err


def test_no_linker_is_reported(tcc, bundle, monkeypatch):
    known = arm_backend.installed_version
    monkeypatch.setattr(
        arm_backend, "installed_version", lambda n: None if n == "ziglang" else known(n)
    )
    ended = tcc("verify", bundle, "--trust")
    assert ended.code == 0, ended.err
    for file in ("libtiny.a", "libtiny.so"):
        assert f"{file} was not verified: ziglang links programs with it" in ended.err
    listed = tcc("verify", bundle, "--trust", "--json").document["bundles"][0]["libraries"]
    assert [each["holds"] for each in listed] == [None, None]
