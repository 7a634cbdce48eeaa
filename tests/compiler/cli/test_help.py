"""`tcc help`: entries of codes and warning kinds, command help, and suggestions for unknown words."""

import importlib
import re

import pytest
import typer

from tcc.compiler.cli.option_table import MAIN, OPTIONS
from tcc.compiler.frontend.warnings.warning_kinds import WARNING_KINDS
from tcc.compiler.support import error_codes

app = importlib.import_module("tcc.compiler.cli.app")  # the package has an object with this name
LAST_CODES = [code for code in error_codes.load_error_codes() if code[0] == "E"][-3:]


def test_entry_has_what_why_and_fix(tcc):
    outcome = tcc("help", "E0233")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "E0233: The labels do not match the output.\n"
        "\n"
        "Label n names number n of the output. An extra, missing or repeated label would assign"
        " wrong names\n"
        "to correct numbers.\n"
        "\n"
        "Example spec (excerpt):\n"
        "\n"
        "    graph: [global_avg_pool, flatten, linear: {units: 3}]\n"
        "    output: {classes: {labels: [benign, malignant]}}\n"
        "\n"
        "What to do: Write one label for each class, in the order of training, and set the number"
        " of units to\n"
        "`len(labels)`.\n"
    )


@pytest.mark.parametrize("code", ["E0607", "e0607", "607", "0607", "error[E0607]"[5:]])
def test_spellings_of_a_code(tcc, code):
    assert tcc("help", code).out.startswith("E0607: ")


def test_every_warning_kind_has_help_by_name(tcc):
    for kind in WARNING_KINDS:
        outcome = tcc("help", kind.name)
        assert outcome.out.startswith(f"{kind.code}: ")
        assert f"`allow: [{kind.name}]`" in outcome.out


def test_help_as_json(tcc):
    document = tcc("help", "unused-name", "--json").document
    assert (document["code"], document["kind"]) == ("W0503", "unused-name")
    assert all(document[key] for key in ("what", "why", "remedy", "spec"))
    assert tcc("help", "E0607", "--json").document["kind"] is None


@pytest.mark.parametrize("command", [(), ("build",), ("zoo",), ("dev", "table"), ("help",)])
def test_help_of_a_command_equals_its_help_option(tcc, command):
    outcome = tcc("help", *command)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == tcc(*command, "--help").out
    assert tcc("help", *command, "--json").document["help"] == outcome.out.rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "help"),
    [
        (("E0699",), "similar codes: E0701, E0702, E0703"),
        (("w0543",), "similar codes: W0533, W0541, W0542"),
        (("99999999",), f"similar codes: {', '.join(LAST_CODES)}"),
        (("buld",), "did you mean `build`?"),
        (("unused-nam",), "did you mean `unused-name`?"),
        (("zoo", "tabel"), "`tcc help` lists the commands"),
        (("nonsense",), "`tcc help` lists the commands"),
    ],
)
def test_unknown_words_have_suggestions(tcc, arguments, help):
    outcome = tcc("help", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        f"error[E0619]: there is no error code, kind of warning or command `{' '.join(arguments)}`\n"
        f"  --> command line: help {' '.join(arguments)}\n"
        f"   = help: {help}\n"
    )


@pytest.mark.parametrize("name", [*app.COMMANDS, *app.HIDDEN])
def test_process_loads_only_its_command(name):
    """The other commands are not loaded, and the help of the command is the same."""
    full_app = typer.main.get_command(app.app)
    partial_app = typer.main.get_command(app.create_minimal_application([name, "--help"]))
    assert set(partial_app.commands) == ({name} if name != "help" else set(full_app.commands))
    help_texts = [
        group.commands[name].get_help(typer.Context(group.commands[name]))
        for group in (partial_app, full_app)
    ]
    assert help_texts[0] == help_texts[1]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version", "build"], ["biuld"], ["help"]])
def test_all_commands_are_loaded_if_none_comes_first(arguments):
    assert app.create_minimal_application(arguments) is app.app


def test_help_shows_main_options_and_help_all_shows_all(tcc):
    short, full = tcc("build", "--help").out, tcc("build", "--help-all").out
    every, main = (text.count("\n  -") for text in (full, short))
    assert main == 10 + 1  # and the line with the number of hidden options
    assert f"--help-all shows {every - 10} more options." in short
    assert "--probes" not in short
    assert "--probes" in full
    assert "more options" not in full
    assert "--help-all" not in tcc("check", "--help").out


@pytest.mark.parametrize("command", ["fmt", "serve", "trust add", "dev cache"])
def test_every_command_accepts_help_all(tcc, command):
    args = command.split()
    assert tcc(*args, "--help-all").out == tcc(*args, "--help").out


@pytest.mark.parametrize("command", MAIN)
def test_at_most_ten_main_options_include_the_required_ones(tcc, command):
    args = command.split()
    full = tcc(*args, "--help-all").out.partition("Options:")[2]
    every = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", full, re.MULTILINE))
    assert len(MAIN[command]) <= 10 < len(every)
    assert set(MAIN[command]) <= every
    required = re.findall(r"^  (--[a-z-]+)[^[]*?\[required\]", full, re.MULTILINE)
    assert set(required) <= set(MAIN[command])


def test_no_other_command_has_more_than_ten_options():
    many = {name for name, needs in OPTIONS.items() if len(needs) > 10}
    assert many == set(MAIN)


def test_old_command_name_has_the_new_help(tcc):
    assert tcc("passes", "--help").out == tcc("dev", "passes", "--help").out
    assert tcc("help", "zoo", "table").out == tcc("dev", "table", "--help").out
    assert tcc("help", "slide", "view").out == tcc("serve", "--help").out
    assert "import-weights" not in tcc("--help").out
    assert "CHECKPOINT" in tcc("import-weights", "--help").out


@pytest.mark.parametrize(
    ("former", "present"),
    [
        (("passes",), ("dev", "passes")),
        (("cache",), ("dev", "cache")),
        (("zoo", "table", "fastnet-8"), ("dev", "table", "fastnet-8")),
    ],
)
def test_old_command_name_still_works(tcc, former, present):
    assert tcc(*former, "--json").document == tcc(*present, "--json").document
