"""`tcc help`: entries of codes and kinds, help of commands, and what is near an unknown word."""

import importlib
import re

import pytest
import typer

from tcc.compiler.cli.option_table import MAIN, OPTIONS
from tcc.compiler.frontend.warnings.warning_kinds import WARNING_KINDS
from tcc.compiler.support import error_codes

app = importlib.import_module("tcc.compiler.cli.app")  # the package has an object of this name
LAST_CODES = [code for code in error_codes.load_error_codes() if code[0] == "E"][-3:]


def test_an_entry_says_what_why_and_what_to_do(tcc):
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


@pytest.mark.parametrize("word", ["E0607", "e0607", "607", "0607", "error[E0607]"[5:]])
def test_ways_to_write_a_code(tcc, word):
    assert tcc("help", word).out.startswith("E0607: ")


def test_every_kind_of_warning_is_explained_by_its_name(tcc):
    for kind in WARNING_KINDS:
        outcome = tcc("help", kind.name)
        assert outcome.out.startswith(f"{kind.code}: ")
        assert f"`allow: [{kind.name}]`" in outcome.out


def test_as_a_document(tcc):
    document = tcc("help", "unused-name", "--json").document
    assert (document["code"], document["kind"]) == ("W0503", "unused-name")
    assert all(document[key] for key in ("what", "why", "remedy", "spec"))
    assert tcc("help", "E0607", "--json").document["kind"] is None


@pytest.mark.parametrize("words", [(), ("build",), ("zoo",), ("dev", "table"), ("help",)])
def test_help_of_commands_is_their_own(tcc, words):
    outcome = tcc("help", *words)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == tcc(*words, "--help").out
    assert tcc("help", *words, "--json").document["help"] == outcome.out.rstrip("\n")


@pytest.mark.parametrize(
    ("words", "help"),
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
def test_what_is_not_known(tcc, words, help):
    outcome = tcc("help", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        f"error[E0619]: there is no error code, kind of warning or command `{' '.join(words)}`\n"
        f"  --> command line: help {' '.join(words)}\n"
        f"   = help: {help}\n"
    )


@pytest.mark.parametrize("name", [*app.COMMANDS, *app.HIDDEN])
def test_a_process_has_the_sub_command_that_it_is_to_run(name):
    """The others are left out, and it says of itself what it says among them."""
    full_app = typer.main.get_command(app.app)
    partial_app = typer.main.get_command(app.create_minimal_application([name, "--help"]))
    assert set(partial_app.commands) == ({name} if name != "help" else set(full_app.commands))
    help_texts = [
        group.commands[name].get_help(typer.Context(group.commands[name]))
        for group in (partial_app, full_app)
    ]
    assert help_texts[0] == help_texts[1]


@pytest.mark.parametrize("words", [[], ["--help"], ["--version", "build"], ["biuld"], ["help"]])
def test_all_sub_commands_are_there_where_none_is_named_first(words):
    assert app.create_minimal_application(words) is app.app


def test_help_shows_the_options_that_matter_and_help_all_every_one(tcc):
    short, full = tcc("build", "--help").out, tcc("build", "--help-all").out
    every, main = (text.count("\n  -") for text in (full, short))
    assert main == 10 + 1  # and the line that says how many are left out
    assert f"--help-all shows {every - 10} more options." in short
    assert "--probes" not in short
    assert "--probes" in full
    assert "more options" not in full
    assert "--help-all" not in tcc("check", "--help").out


@pytest.mark.parametrize("command", ["fmt", "serve", "trust add", "dev cache"])
def test_every_command_takes_help_all(tcc, command):
    args = command.split()
    assert tcc(*args, "--help-all").out == tcc(*args, "--help").out


@pytest.mark.parametrize("command", MAIN)
def test_the_options_that_matter_are_ten_of_more_and_hold_what_has_to_be_typed(tcc, command):
    args = command.split()
    full = tcc(*args, "--help-all").out.partition("Options:")[2]
    every = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", full, re.MULTILINE))
    assert len(MAIN[command]) <= 10 < len(every)
    assert set(MAIN[command]) <= every
    required = re.findall(r"^  (--[a-z-]+)[^[]*?\[required\]", full, re.MULTILINE)
    assert set(required) <= set(MAIN[command])


def test_no_other_command_has_more_than_ten_options_of_its_own():
    many = {name for name, needs in OPTIONS.items() if len(needs) > 10}
    assert many == set(MAIN)


def test_a_former_name_has_the_help_of_the_present_one(tcc):
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
def test_a_former_name_does_what_it_did(tcc, former, present):
    assert tcc(*former, "--json").document == tcc(*present, "--json").document
