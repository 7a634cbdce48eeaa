"""Options without effect are refused: every option of every command is in one table."""

import importlib

import pytest
import typer

from tcc.compiler.cli import option_table
from tcc.compiler.cli.parameters import find_command_name, find_long_name

APP = importlib.import_module("tcc.compiler.cli.app").app


def walk(command, parent=None):
    """Yield each command below one, with its context."""
    context = typer.Context(command, parent=parent, info_name=command.name)
    if parent is not None:
        yield context
    for child in getattr(command, "commands", {}).values():
        yield from walk(child, context)


def options(context):
    """Return the first long name of each option of a command."""
    return [find_long_name(p) for p in context.command.params if p.param_type_name == "option"]


CONTEXTS = {
    find_command_name(context): context
    for context in walk(typer.main.get_command(APP))
    if options(context)
}


def test_every_command_is_there():
    assert set(CONTEXTS) == set(option_table.OPTIONS)


@pytest.mark.parametrize("command", CONTEXTS)
def test_every_option_is_in_the_table(command):
    needs = option_table.find_needs(command)
    missing = set(options(CONTEXTS[command])) - set(needs)
    assert not missing, f"say in option_table.py what {missing} of `tcc {command}` need"
    gone = set(option_table.OPTIONS[command]) - set(options(CONTEXTS[command]))
    assert not gone, f"`tcc {command}` has no options {gone}"


@pytest.mark.parametrize("command", CONTEXTS)
def test_needs_name_options_of_the_same_command(command):
    known = set(options(CONTEXTS[command]))

    def names(need):
        yield from getattr(need, "names", ())
        if hasattr(need, "name"):
            yield need.name
        for inner in getattr(need, "needs", ()):
            yield from names(inner)

    for option, needs in option_table.find_needs(command).items():
        for need in needs:
            assert set(names(need)) <= known, (command, option)
