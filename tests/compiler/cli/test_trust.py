"""Programs of strangers: none runs unless it was built here, or the user says so."""

import os

import pytest
from forged_bundles import forge_bundle

from tcc.backends.web.backend import Web

COMMANDS = {
    "run": lambda tcc, folder, picture: tcc("run", folder, picture),
    "verify": lambda tcc, folder, _: tcc("verify", folder),
    "eval": lambda tcc, folder, _: tcc("eval", folder, "--data", "set"),
    "bench": lambda tcc, folder, _: tcc("bench", folder),
    "plot confusion": lambda tcc, folder, _: tcc("plot", "confusion", folder, "--data", "set"),
    "plot tsne": lambda tcc, folder, _: tcc("plot", "tsne", folder, "--data", "set"),
    "plot scatter": lambda tcc, folder, _: tcc(
        "plot", "scatter", "tiny.yaml", folder, "--data", "set", "--seed", "0"
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_strangers_program_does_not_run(command, tcc, strange, picture, images, home):
    outcome = COMMANDS[command](tcc, strange, picture)
    assert outcome.code == 2, outcome.err
    assert "error[E1350]: this program was not built here" in outcome.err
    assert f"--> {strange}/model/tiny-run" in outcome.err
    assert "--trust" in outcome.err
    assert not (home / "ran").exists()


def test_it_runs_when_the_user_says_so_now_and_later(tcc, strange, picture, home):
    outcome = tcc("run", strange, picture, "--trust")
    assert "E0652" in outcome.err  # it ran, and is no network
    assert (home / "ran").read_text() == "ran\n"
    (home / "ran").unlink()
    assert "E0652" in tcc("run", strange, picture).err
    assert (home / "ran").exists()


@pytest.mark.parametrize("kind", ["confusion", "tsne"])
def test_its_picture_is_drawn_when_the_user_says_so(kind, tcc, strange, images, home):
    outcome = tcc("plot", kind, strange, "--data", images, "--trust", "-o", "p.png")
    assert "E0652" in outcome.err  # it ran, and is no network
    assert (home / "ran").exists()


def test_one_byte_more_is_another_program(tcc, strange, picture, home):
    tcc("run", strange, picture, "--trust")
    (home / "ran").unlink()
    with (strange / "model/tiny-run").open("a") as file:
        file.write("\n")
    assert "E1350" in tcc("run", forge_bundle(strange, "host"), picture).err
    assert not (home / "ran").exists()


@pytest.mark.parametrize("spoil", ["others write", "a link", "a file", "relative"])
def test_a_state_that_others_may_write_says_nothing(
    spoil, tcc, strange, picture, home, state, monkeypatch
):
    tcc("run", strange, picture, "--trust")
    (home / "ran").unlink()
    programs_folder = state / "tcc" / "programs"
    if spoil == "others write":
        programs_folder.chmod(0o777)
    elif spoil == "a link":
        programs_folder.rename(home / "moved")
        programs_folder.symlink_to(home / "moved")
    elif spoil == "a file":
        programs_folder.rename(home / "moved")
        programs_folder.write_text("")
    else:
        monkeypatch.setenv("HOME", str(home / "nobody"))
        monkeypatch.setenv("XDG_STATE_HOME", os.path.relpath(state))
    outcome = tcc("run", strange, picture)
    assert outcome.code == 2
    assert "E1350" in outcome.err
    assert ("is not used" in outcome.err) == (spoil != "relative")
    assert not (home / "ran").exists()


def test_a_page_is_code_but_for_its_network():
    names = ("app.js", "model.onnx", "ort/ort.wasm", "index.html")
    assert Web().list_code_files(names) == ("app.js", "ort/ort.wasm", "index.html")


def test_what_a_runtime_reads_needs_no_trust(tcc, home, state, picture):
    tcc("build", "tiny.yaml", "--target", "onnxruntime")
    assert not (state / "tcc").exists()
    assert tcc("run", "build/tiny-onnxruntime-fp32", picture).code == 0
