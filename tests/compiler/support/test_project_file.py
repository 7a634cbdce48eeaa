"""The project file: it is found and read, and every error has a location."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.support import project_file
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.zoo import shipped

FULL_FILE = """\
spec = "spec/ddsnet.yaml"
weights = "w.safetensors"
data = "../images"
targets = ["arm-a7", "host"]
precision = "fp32"
out = "build"

[params]
classes = 5
layers = [4, 4]
rate = 0.5
act = "relu6"
bias = false
"""


def parse_text(text: str) -> project_file.Project:
    return project_file.parse(text, Path("top/tcc.toml"))


def read_refusal(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_text(text)
    return str(caught.value)


def test_every_key_is_read_and_paths_are_relative_to_the_file():
    project = parse_text(FULL_FILE)
    assert project.spec == "spec/ddsnet.yaml"
    assert project.weights == Path("top/w.safetensors")
    assert project.data == Path("top/../images")
    assert project.targets == ("arm-a7", "host")
    assert project.precision == "fp32"
    assert project.out == Path("top/build")
    assert project.folder == Path("top")


def test_tilde_is_expanded_to_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    project = parse_text('spec = "~/a.yaml"\nout = "~/b"\nweights = "~c"')
    assert (project.spec, project.out, project.weights) == (
        "/h/a.yaml",
        Path("/h/b"),
        Path("top/~c"),
    )


def test_parameters_become_set_options():
    assert parse_text(FULL_FILE).params == {
        "classes": "5",
        "layers": "[4, 4]",
        "rate": "0.5",
        "act": "relu6",
        "bias": "false",
    }


def test_nearest_file_above_is_found(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "tcc.toml").write_text('precision = "far"')
    assert project_file.find_project(tmp_path / "a/b").path == tmp_path / "tcc.toml"
    (tmp_path / "a/tcc.toml").write_text('precision = "near"')
    assert project_file.find_project(tmp_path / "a/b").precision == "near"


def test_paths_stay_relative_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "tcc.toml").write_text('out = "build"')
    monkeypatch.chdir(tmp_path)
    assert project_file.find_project(Path()).out == Path("build")


def test_without_a_project_file_there_are_no_defaults(tmp_path):
    assert project_file.find_project(tmp_path) == project_file.Project()


def test_folder_with_the_file_name_is_ignored(tmp_path):
    (tmp_path / "tcc.toml").mkdir()
    assert project_file.find_project(tmp_path).path is None


def test_repository_has_a_project_file(root):
    project = project_file.find_project(root)
    assert project.path == root / "tcc.toml"
    assert project.spec in {path.parent.name for path in shipped.list_trained()}
    assert project.data is not None
    assert project.data.is_dir()


def test_misspelt_key_has_a_suggestion():
    assert read_refusal('spec = "a.yaml"\ntargts = ["host"]\n') == (
        "error[E0612]: unknown key `targts` in the project file\n"
        " --> top/tcc.toml:2:1\n"
        "  |\n"
        '2 | targts = ["host"]\n'
        "  | ^^^^^^\n"
        "   = help: did you mean `targets`?"
    )


def test_unknown_key_lists_the_known_keys():
    assert "help: known keys: spec, weights, data, targets," in read_refusal("colour = 1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('targets = "host"', "`targets` must be a list of strings"),
        ("targets = []", "this is an empty list"),
        ("targets = [1]", "this is a list"),
        ("spec = 3", "this is a whole number"),
        ("spec = true", "this is true or false"),
        ('spec = ""', "this is an empty string"),
        ("out = 1979-05-27", "this is a date or time"),
        ("params = 1", "`params` must be a table"),
        ("[params]\nx = 1979-05-27", "`x` must be a number, a string, true, false or a list"),
        ("[params.x]\ny = 1", "this is a table"),
        ("[spec]\ny = 1", "`spec` must be a string"),
    ],
)
def test_wrong_value_types_are_refused(text, message):
    refusal = read_refusal(text)
    assert "error[E0613]" in refusal
    assert message in refusal
    assert "--> top/tcc.toml:" in refusal


def test_all_errors_are_reported_together():
    refusal = read_refusal("spec = 1\nfoo = 2\n[params]\nbad = 1979-05-27\n")
    assert [line for line in refusal.splitlines() if "-->" in line] == [
        " --> top/tcc.toml:1:1",
        " --> top/tcc.toml:2:1",
        " --> top/tcc.toml:4:1",
    ]


def test_a_syntax_error_is_located():
    assert read_refusal('spec = "a"\nout = \n') == (
        "error[E0611]: the project file is not TOML\n"
        " --> top/tcc.toml:2:7\n"
        "  |\n"
        "2 | out = \n"
        "  |       ^ Invalid value"
    )


def test_a_syntax_error_at_the_end_is_located():
    assert " --> top/tcc.toml:1:10" in read_refusal('spec = "a')


@pytest.mark.parametrize("data", [b"\xff\xfe", b"spec = '" + b"x" * 70_000 + b"'"])
def test_binary_or_too_large_file_is_refused(tmp_path, data):
    (tmp_path / "tcc.toml").write_bytes(data)
    with pytest.raises(UserError, match="E0610"):
        project_file.find_project(tmp_path)


def test_deep_nesting_is_refused():
    assert "error[E0611]" in read_refusal("spec = " + "[" * 20_000)


LINES = st.one_of(
    st.text(max_size=20),
    st.builds(
        "{} = {}".format,
        st.sampled_from([*project_file.KEY_KINDS, "spce", '"a b"', "a.b", "\\u001b"]),
        st.sampled_from(["1", "true", '"x"', "[]", '["host"]', "{a = 1}", "07:32:00", '"\\u0000"']),
    ),
    st.sampled_from(["[params]", "[[params]]", "[x.y]", "# note"]),
)


@given(st.lists(LINES, max_size=6).map("\n".join))
def test_any_text_is_read_or_refused(text):
    codes = set()
    try:
        parse_text(text)
    except UserError as error:
        codes = {d.code for d in error.diagnostics}
    assert codes <= {"E0611", "E0612", "E0613"}
