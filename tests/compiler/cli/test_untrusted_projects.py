"""Project files of other users are refused, and a project writes only into its folder."""

import os
from pathlib import Path

import pytest

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root to create files of other users")


@pytest.fixture(autouse=True)
def config(home, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    (home / "a/b").mkdir(parents=True)
    (home / "tiny.yaml").rename(home / "a/tiny.yaml")
    (home / "a/tcc.toml").write_text('spec = "tiny.yaml"\ntargets = ["onnxruntime"]\nout = "o"\n')
    monkeypatch.chdir(home / "a/b")
    return home / "config"


def format_code(outcome) -> str:
    return f"{outcome.code} {outcome.err.partition('[')[2][:5]}"


OWNER_CHANGES = {
    "file": lambda home: os.chown(home / "a/tcc.toml", NOBODY, NOBODY),
    "folder": lambda home: os.chown(home / "a", NOBODY, NOBODY),
    "above": lambda home: os.chown(home, NOBODY, NOBODY),
    "all write the file": lambda home: (home / "a/tcc.toml").chmod(0o666),
    "the group writes the file": lambda home: (home / "a/tcc.toml").chmod(0o660),
    "all write there": lambda home: (home / "a").chmod(0o777),
    "as in /tmp": lambda home: (home / "a").chmod(0o1777),
    "all write above": lambda home: home.chmod(0o777),
    "a link": lambda home: (
        (home / "a/tcc.toml").rename(home / "real.toml"),
        (home / "a/tcc.toml").symlink_to(home / "real.toml"),
        (home / "real.toml").chmod(0o666),
    ),
}


@AS_ROOT
@pytest.mark.parametrize("change", OWNER_CHANGES)
def test_project_file_writable_by_others_is_refused(change, tcc, home):
    assert tcc("check").code == 0
    OWNER_CHANGES[change](home)
    try:
        for args in (("check",), ("build",), ("check", "../tiny.yaml"), ("run", "x", "y.png")):
            outcome = tcc(*args)
            assert format_code(outcome) == "2 E1361", outcome.err
            assert f"--> {home}/a/tcc.toml" in outcome.err
            assert f"tcc trust folder {home}/a" in outcome.err
        assert not (home / "a/o").exists()
        assert not Path("build").exists()
    finally:
        home.chmod(0o700)


@AS_ROOT
def test_trusted_project_folder_is_accepted(tcc, home):
    os.chown(home / "a", NOBODY, NOBODY)
    assert format_code(tcc("check")) == "2 E1361"
    assert tcc("trust", "folder", home / "a").code == 0
    assert tcc("check").code == 0
    (home / "a/b/tcc.toml").write_bytes((home / "a/tcc.toml").read_bytes())
    assert format_code(tcc("check")) == "2 E1361"  # only this folder


@AS_ROOT
def test_project_file_of_root_is_accepted_for_all_users(home):
    from tcc.compiler.support import project_file

    for path in (home / "a/b", home / "config"):
        if path.exists():
            os.chown(path, NOBODY, NOBODY)
    top = home
    while top.stat().st_mode & 0o005 != 0o005:  # pytest's folders are private to root
        top.chmod(0o755)
        top = top.parent
    child = os.fork()
    if not child:
        os.seteuid(NOBODY)
        os._exit(0 if project_file.find_project(Path()).spec == "tiny.yaml" else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_search_stops_at_the_repository_root(tcc, home):
    (home / "a/b/.git").mkdir()
    assert format_code(tcc("check")) == "2 E0608"
    (home / "a/b/.git").rename(home / "a/.git")
    assert tcc("check").code == 0
    (home / "a/.git").rename(home / "a/b/.git")
    (home / "a/b/.git").rmdir()
    (home / "a/b/.git").write_text("gitdir: elsewhere\n")  # as in a worktree
    assert format_code(tcc("check")) == "2 E0608"


@pytest.mark.parametrize("out", ["..", "../x", "/nowhere", "a/../../x", "~/x", "link", "link/x"])
def test_output_outside_the_project_folder_is_refused(out, tcc, home):
    (home / "a/link").symlink_to(home)
    (home / "a/tcc.toml").write_text(f'spec = "tiny.yaml"\nout = "{out}"\n')
    for args in (("build", "--target", "onnxruntime"), ("check",)):
        outcome = tcc(*args)
        assert format_code(outcome) == "2 E1362", outcome.err
        assert f"--> {home}/a/tcc.toml:2:1" in outcome.err
    assert not list(home.rglob("manifest.json"))


@pytest.mark.parametrize("out", [".", "x", "x/y/../z", "inner"])
def test_output_inside_the_project_folder_is_accepted(out, tcc, home):
    (home / "a/x").mkdir()
    (home / "a/inner").symlink_to("x")
    (home / "a/tcc.toml").write_text(f'spec = "tiny.yaml"\nout = "{out}"\n')
    assert tcc("build", "--target", "onnxruntime").code == 0
    out_folder = Path(os.path.realpath(home / "a" / out))
    assert (out_folder / "tiny-onnxruntime-fp32/manifest.json").exists()
    assert tcc("build", "--target", "onnxruntime", "-o", home / "typed").code == 0
    assert (home / "typed/tiny-onnxruntime-fp32/manifest.json").exists()


@AS_ROOT
@pytest.mark.parametrize("key", ["spec", "weights", "data"])
def test_project_files_of_other_users_are_refused(key, tcc, home):
    (home / "theirs").mkdir()
    (home / "theirs/file.yaml").write_text((home / "a/tiny.yaml").read_text())
    (home / "a/tcc.toml").write_text(f'out = "o"\n{key} = "../theirs/file.yaml"\n')
    assert tcc("check", "../tiny.yaml").code == 0
    os.chown(home / "theirs", NOBODY, NOBODY)
    outcome = tcc("check", "../tiny.yaml")
    assert format_code(outcome) == "2 E1363"
    assert f"--> {home}/a/tcc.toml:2:1" in outcome.err
    assert f"{home}/theirs belongs to user nobody" in outcome.err


def test_messages_name_the_project_file_as_the_source(tcc, home):
    from tcc.compiler.data import weights
    from tcc.compiler.frontend.spec import load

    weights.write(
        home / "a/w.safetensors", weights.initialize_random(load(home / "a/tiny.yaml").graph)
    )
    with (home / "a/tcc.toml").open("a") as file:
        file.write('weights = "w.safetensors"\n[params]\nwidth = 4\n')
    name = f"{home}/a/tcc.toml"
    stderr_text = tcc("build").err
    spec, parameters = "the spec tiny.yaml", "the parameters width"
    own_weights = f"the weights {home}/a/w.safetensors"
    assert f"{name} sets the output folder {home}/a/o\n" in stderr_text
    assert f"{name} sets {spec}, {parameters}, {own_weights}\n" in stderr_text
    assert f"{name} sets {spec}, {parameters}\n" in tcc("check").err
    stderr_text = tcc(
        "build", "../tiny.yaml", "--seed", "1", "-o", "x", "--target", "onnxruntime"
    ).err
    assert f"{name} sets {parameters}\n" in stderr_text
    assert "the output" not in stderr_text
    assert "the weights" not in stderr_text.replace("warning: the weights", "")


def test_relative_variable_is_reported_once(tcc, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "c")
    stderr_text = tcc("check").err
    assert (
        stderr_text.count("note: XDG_CACHE_HOME=c is ignored because it is not an absolute path")
        == 1
    )
