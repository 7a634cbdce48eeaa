"""Failures of AXERA's toolchain, simulated by a fake one: what `build` and `verify` report."""

import json
import signal
import subprocess
import sys
import time

import pytest
from npu_packages import build

from tcc.backends.pulsar import container

BUNDLE = "build/odd-ax620-int8"


def test_log_of_an_external_compilation_is_imported(tcc, home, odd, images, docker):
    odd("two")
    outcome = build(tcc, "ax620", images, "--no-tool")
    assert outcome.code == 0
    assert "  not compiled: --no-tool. To compile it, run this where docker has" in outcome.out
    bundle = home / BUNDLE
    assert not (bundle / "model/compiled").exists()
    subprocess.run(["sh", bundle / "model/build.sh"], check=True, capture_output=True)
    out = home / f"{BUNDLE}.out"
    outcome = tcc("verify", bundle, "--logs", out / "log.txt")
    assert outcome.code == 0, outcome.err
    assert "0.998900" in outcome.out
    assert "part_0.neu  NPU" in outcome.out
    log_text = (out / "log.txt").read_text()
    log = out / "log.txt"
    log.write_text(log_text.replace("Layer: mean", "Layer: else"))
    outcome = tcc("verify", bundle, "--logs", log)
    is_reported = (
        "error[E0671]: the log has no comparison of the network's output `mean`" in outcome.err
    )
    assert (outcome.code, is_reported) == (2, True)
    for text in ("all is well\n", "", "\0" * 99, "Pulsar2 Version: 6.0-lite\n"):
        log.write_text(text)
        outcome = tcc("verify", bundle, "--logs", log)
        assert (outcome.code, "no line of Pulsar that compares layers" in outcome.err) == (2, True)
    for name in ("none.txt", "."):
        outcome = tcc("verify", bundle, "--logs", name)
        assert (outcome.code, "error[E0671]: cannot read the log" in outcome.err) == (2, True)
    copied_log = home / "log.txt"
    copied_log.write_text(log_text)
    outcome = tcc("verify", bundle, "--logs", copied_log)
    assert (outcome.code, "only the log itself was checked" in outcome.out) == (0, True)
    for end in (
        log_text.index("tcc: every"),
        log_text.rindex("Layer: "),
        log_text.index("Layer: "),
    ):
        copied_log.write_text(log_text[:end])
        outcome = tcc("verify", bundle, "--logs", copied_log)
        assert outcome.code == 4
        assert "the log ends at command `" in outcome.err
        assert "error: " in outcome.err
        assert "the toolchain failed: see the end of" in outcome.err
    (out / "gt/2/joint/mean.bin").unlink()
    log.write_text(log_text)
    outcome = tcc("verify", bundle, "--logs", log)
    assert outcome.code == 4
    assert "the log's folder has no outputs for golden 2" in outcome.err
    (out / "gt/1/joint/mean.bin").write_bytes(b"short")
    outcome = tcc("verify", bundle, "--logs", log)
    assert (
        outcome.code,
        "error[E0671]: the output file does not have the size" in outcome.err,
    ) == (
        2,
        True,
    )


def test_tool_warnings_are_in_the_manifest(tcc, home, odd, images, docker):
    """Slow and doubtful layers, layers on the CPU, and the similarity of each layer."""
    odd("two")
    spec = home / "odd.yaml"
    deep = "- conv: {filters: 24, kernel: 5, padding: 2}\n  - depthwise_conv: {kernel: 3}\n"
    spec.write_text(spec.read_text().replace("- relu\n", f"{deep}  - relu\n", 1))
    docker.setenv("NPU_TOOL", "cpu")
    outcome = build(tcc, "ax620,ax650", images)
    assert outcome.code == 0, outcome.err
    assert "runs on the CPU instead of the NPU, which is slow: part_1.axe" in outcome.err
    manifest_json = json.loads((home / BUNDLE / "manifest.json").read_text())
    assert manifest_json["compiled"]["parts"][1] == {"name": "part_1.axe", "where": "CPU"}
    assert [member["cosine"] for member in manifest_json["compiled"]["layers"]] == [0.9989] * 2
    warning_by_rule = {
        member["rule"].partition(":")[0]: member for member in manifest_json["warnings"]
    }
    assert warning_by_rule.keys() == {"rule conv.size", "rule conv.depthwise"}
    assert warning_by_rule["rule conv.depthwise"]["code"] == "W0662"
    warned = [line for line in outcome.err.splitlines() if line.startswith("warning[W066")]
    for target in ("ax620", "ax650"):
        path = home / f"build/odd-{target}-int8/manifest.json"
        for member in json.loads(path.read_text()).get("warnings", ()):
            assert f"warning[{member['code']}]: {member['message']}" in warned
            assert member["layers"]
            assert member["help"]
    assert tcc("show", BUNDLE).code == 0
    assert tcc("verify", BUNDLE).code == 0


def test_constant_outputs_are_a_disagreement(tcc, home, odd, images, docker):
    odd("two")
    docker.setenv("NPU_TOOL", "stuck")
    build_outcome = build(tcc, "ax620", images)
    for outcome in (build_outcome, tcc("verify", BUNDLE)):
        assert outcome.code == 4
        assert "STUCK" in outcome.out
        assert (
            "error: build/odd-ax620-int8: the NPU's outputs do not match the golden outputs"
            in outcome.err
        )


@pytest.mark.parametrize("target", ["ax620", "ax650"])
@pytest.mark.parametrize("mode", ["golden", "lost"])
def test_golden_that_fails_in_the_tool_is_reported(tcc, home, odd, images, docker, target, mode):
    """Compilation succeeds, but the tool cannot run the second golden or any golden."""
    odd("two")
    docker.setenv("NPU_TOOL", mode)
    build_outcome = build(tcc, target, images)
    bundle = f"build/odd-{target}-int8"
    manifest_json = json.loads((home / bundle / "manifest.json").read_text())
    command = manifest_json["compiled"]["stopped"]
    assert command.startswith("pulsar run model.onnx" if target == "ax620" else "pulsar2 run")
    for outcome in (build_outcome, tcc("verify", bundle)):
        assert outcome.code == 4, outcome.err
        assert f"the log ends at command `{command}`: compilation is incomplete" in outcome.err
        assert f"error: {bundle}: the toolchain failed: see the end of {bundle}" in outcome.err
    completed = subprocess.run(
        ["sh", home / bundle / "model/build.sh", home / "out"], capture_output=True, check=False
    )
    assert completed.returncode == 4
    assert b"a later command failed" in completed.stderr


def test_failed_compilation_leaves_no_bundle(tcc, home, odd, images, docker):
    odd("two")
    docker.setenv("NPU_TOOL", "fail")
    outcome = build(tcc, "ax620", images)
    assert outcome.code == 2
    assert "error[E0672]: Pulsar did not compile the package" in outcome.err
    assert "neuwizard killed by SIGKILL" in outcome.err
    assert not (home / BUNDLE).exists()


BROKEN_DOCKERS = {
    "no image": ("echo debian:stable", "docker has no image of Pulsar"),
    "fails": ("echo 'permission denied: docker.sock' >&2; exit 1", "docker failed: permission denied: docker.sock"),
    "fails in silence": ("exit 125", "docker failed: it gave no reason"),
    "killed": ("kill -9 $$", "docker failed: it gave no reason"),
    "slow": ("exec sleep 60", "docker did not answer within 1 seconds"),
    "bytes": ("printf '\\377\\376\\n'", "docker has no image of Pulsar"),
    "no program": (None, "docker cannot be started: Exec format error"),
}  # fmt: skip


def test_docker_failures_are_reported(tcc, home, odd, images, docker):
    """The package is built, and the output has the reason why it was not compiled."""
    odd("two")
    calibrate_outcome = tcc(
        "calibrate", "odd.yaml", "--target", "ax620", "--data", images, "-o", "c.json"
    )
    assert calibrate_outcome.code == 0
    docker.setattr(container, "LIST_SECONDS", 1)
    for name, (body, reason) in BROKEN_DOCKERS.items():
        text = "\x7fELF" if body is None else f"#!/bin/sh\n{body}\n"
        (home / "bin/docker").write_text(text)
        outcome = build(tcc, "ax620", images, "--calibration", "c.json")
        assert outcome.code == 0, (name, outcome.err)
        assert f"  not compiled: {reason}. To compile it" in outcome.out, name


def test_terminated_build_stops_the_tool(home, odd, images, docker):
    """The container is removed, and no partial files remain."""
    odd("two")
    cases = ("image) echo sipeed/pulsar:1;;", 'run) echo "$5" >began; exec sleep 60;;',
             'rm) echo "$3" >removed;;')  # fmt: skip
    (home / "bin/docker").write_text(f'#!/bin/sh\ncase "$1" in {" ".join(cases)} esac\n')
    command = [sys.executable, "-c", "from tcc.compiler.cli import main; main()", "build",
               "odd.yaml", "--target", "ax620", "--data", str(images), "--floor", "min_cosine=0",
               "--floor", "min_correlation=0"]  # fmt: skip
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    end = time.monotonic() + 60
    while not (home / "began").exists() and running.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert (home / "began").exists(), running.communicate()
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert running.returncode == 143
    assert (home / "removed").read_text() == (home / "began").read_text()
    assert not (home / BUNDLE).exists()
