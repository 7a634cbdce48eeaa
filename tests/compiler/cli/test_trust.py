"""Programs of other machines run only if the user trusts them."""

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
def test_program_of_another_machine_does_not_run(
    command, tcc, untrusted_bundle, picture, images, home
):
    outcome = COMMANDS[command](tcc, untrusted_bundle, picture)
    assert outcome.code == 2, outcome.err
    assert "error[E1350]: this program was not built here" in outcome.err
    assert f"--> {untrusted_bundle}/model/tiny-run" in outcome.err
    assert "--trust" in outcome.err
    assert not (home / "ran").exists()


def test_trusted_program_runs_now_and_later(tcc, untrusted_bundle, picture, home):
    outcome = tcc("run", untrusted_bundle, picture, "--trust")
    assert "E0652" in outcome.err  # it ran, and it is not a network
    assert (home / "ran").read_text() == "ran\n"
    (home / "ran").unlink()
    assert "E0652" in tcc("run", untrusted_bundle, picture).err
    assert (home / "ran").exists()


@pytest.mark.parametrize("kind", ["confusion", "tsne"])
def test_plot_runs_a_trusted_program(kind, tcc, untrusted_bundle, images, home):
    outcome = tcc("plot", kind, untrusted_bundle, "--data", images, "--trust", "-o", "p.png")
    assert "E0652" in outcome.err  # it ran, and it is not a network
    assert (home / "ran").exists()


def test_changed_program_needs_new_trust(tcc, untrusted_bundle, picture, home):
    tcc("run", untrusted_bundle, picture, "--trust")
    (home / "ran").unlink()
    with (untrusted_bundle / "model/tiny-run").open("a") as file:
        file.write("\n")
    assert "E1350" in tcc("run", forge_bundle(untrusted_bundle, "host"), picture).err
    assert not (home / "ran").exists()


@pytest.mark.parametrize("spoil", ["others write", "a link", "a file", "relative"])
def test_state_folder_writable_by_others_is_ignored(
    spoil, tcc, untrusted_bundle, picture, home, state, monkeypatch
):
    tcc("run", untrusted_bundle, picture, "--trust")
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
    outcome = tcc("run", untrusted_bundle, picture)
    assert outcome.code == 2
    assert "E1350" in outcome.err
    assert ("is not used" in outcome.err) == (spoil != "relative")
    assert not (home / "ran").exists()


def test_page_files_are_code_except_the_network():
    names = ("app.js", "model.onnx", "ort/ort.wasm", "index.html")
    assert Web().list_code_files(names) == ("app.js", "ort/ort.wasm", "index.html")


def test_model_files_of_a_runtime_need_no_trust(tcc, home, state, picture):
    tcc("build", "tiny.yaml", "--target", "onnxruntime")
    assert not (state / "tcc").exists()
    assert tcc("run", "build/tiny-onnxruntime-fp32", picture).code == 0
