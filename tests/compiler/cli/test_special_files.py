"""Pipes and devices in place of files are refused immediately with their kind."""

import os
import signal
from contextlib import contextmanager

import pytest

BUILD = ("build", "tiny.yaml", "--target", "ort", "-q")
INT8 = (*BUILD, "--precision", "int8")
READ_COMMANDS = {
    "spec": ("check", "PATH.yaml"),
    "spec of show": ("show", "PATH.yaml"),
    "spec of a build": ("build", "PATH.yaml", "--target", "ort"),
    "spec to format": ("fmt", "PATH.yaml"),
    "weights": (*BUILD, "--weights", "PATH.safetensors"),
    "arrays": ("calibrate", "tiny.yaml", "--target", "ort", "--data", "PATH.npz"),
    "labelled arrays": ("eval", "tiny.yaml", "--data", "PATH.npz"),
    "calibration": (*INT8, "--calibration", "PATH.json"),
    "image": ("run", "build/tiny-onnxruntime-fp32", "PATH.png"),
    "bundle": ("verify", "PATH"),
    "model": ("import", "PATH.onnx"),
    "rules": ("import-weights", "tiny.yaml", "w.safetensors", "--rules", "PATH.yaml"),
}
KIND_PHRASES = {
    "pipe": "a pipe",
    "zeros": "a device",
    "terminal": "a device",
}


@contextmanager
def limit_time(seconds: int):
    """Stop a test that waits for a writer that never comes."""

    def raise_timeout(*_: object) -> None:
        raise AssertionError("it waits")

    original_handler = signal.signal(signal.SIGALRM, raise_timeout)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, original_handler)


def make_special_file(path, kind: str) -> None:
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "zeros":
            path.symlink_to("/dev/zero")
        case "terminal":
            path.symlink_to("/dev/tty")


@pytest.mark.parametrize("kind", KIND_PHRASES)
@pytest.mark.parametrize("command", READ_COMMANDS.values(), ids=READ_COMMANDS)
def test_special_files_are_refused_immediately(tcc, home, command, kind):
    if "run" in command:
        assert tcc(*BUILD).code == 0
    if "--rules" in command:
        from tcc.compiler.data import weights
        from tcc.compiler.frontend.spec import load

        graph = load(home / "tiny.yaml").graph
        weights.write(home / "w.safetensors", weights.initialize_random(graph))
    (name,) = (arg for arg in command if arg.startswith("PATH"))
    make_special_file(home / name, kind)
    with limit_time(20):
        outcome = tcc(*command)
    assert outcome.code == 2
    assert name in outcome.err
    message = (
        "there is no bundle here" if name == "PATH" else f"it is {KIND_PHRASES[kind]}, not a file"
    )
    assert message in outcome.err


@pytest.mark.parametrize("kind", KIND_PHRASES)
def test_special_project_file_is_refused(tcc, home, kind):
    make_special_file(home / "tcc.toml", kind)
    with limit_time(20):
        outcome = tcc("check", "tiny.yaml")
    assert outcome.code == 2
    assert f"error[E0603]: cannot read the project file: it is {KIND_PHRASES[kind]}" in outcome.err
    assert "tcc.toml" in outcome.err
