"""Words of the command line that are text or paths: Typer converts every other one.

It does so with pydantic, even what is no option's value at all, and loading that takes a third of
the time of `tcc check`. Text beyond ASCII, which may hold what is no character, is left to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from tcc.compiler.cli import option_table
from tcc.compiler.support import option_needs
from tcc.compiler.support.console import echo
from tcc.compiler.support.diagnostics import typed
from tcc.compiler.support.option_needs import GivenOptions


@dataclass(frozen=True)
class Conversion:
    """How a parameter's value is converted: text, paths and defaults here, else as Typer would."""

    annotation: Any
    typers: Callable[[], Any]

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value that the command gets."""
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        if self.annotation is str and _plain(value):
            return value
        if self.annotation is Path and _plain(value):  # no command has Typer look at its paths
            return Path(value)
        if type(value) is self.annotation and isinstance(value, int):  # a default: words are text
            return value
        if self.annotation == list[str] and many and all(map(_plain, value)):
            return list(value)
        return self.typers().coerce(value, param=param, ctx=ctx)


def _plain(value: Any) -> bool:
    return isinstance(value, str) and value.isascii()


class Command(TyperCommand):
    """A sub-command that loads pydantic for those words alone that have to be converted."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, `--help` included."""
        return left_as_text(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command, unless one of its options has no effect."""
        with option_needs.checked(collect_options(ctx)):
            return super().invoke(ctx)


class CommandGroup(TyperGroup):
    """A group of sub-commands that loads no pydantic for its own options."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the group's own parameters, `--help` included."""
        return left_as_text(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help, which is no error, where no sub-command is named and one has to be."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            echo(ctx.get_help())
            raise typer.Exit
        return super().parse_args(ctx, args)


def collect_options(context: typer.Context) -> GivenOptions:
    """Return the options of a command line, and which of them were typed."""
    options = {find_long_name(p): p for p in context.command.params if _is_option(p)}
    values = {name: context.params.get(option.name or "") for name, option in options.items()}
    typed_values = {
        name: values[name]
        for name, option in options.items()
        if getattr(context.get_parameter_source(option.name or ""), "name", "") == "COMMANDLINE"
    }
    negated = {name: option.secondary_opts for name, option in options.items()}

    def spell(name: str, value: object) -> str:
        if isinstance(value, bool):
            return name if value else negated[name][0]
        text = value[0] if isinstance(value, list | tuple) and value else value
        return f"{name} {text}"

    needs = option_table.find_needs(find_command_name(context))
    return GivenOptions(values, typed_values, needs, spell, typed)


def find_command_name(context: Any) -> str:
    """Return the words that name a command, without `tcc`."""
    names: list[str] = []
    while context.parent is not None:
        names.insert(0, context.command.name or "")
        context = context.parent
    return " ".join(names)


def find_long_name(option: Any) -> str:
    """Return the first name of an option that begins with two dashes."""
    return next(str(name) for name in option.opts if name.startswith("--"))


def _is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def left_as_text(params: list[Any]) -> list[Any]:
    """Let plain text be the value of each of Typer's parameters, once."""
    for param in params:
        if hasattr(param, "get_runtime_param") and "get_runtime_param" not in vars(param):
            kept = Conversion(param.type_descriptor.annotation, param.get_runtime_param)
            param.get_runtime_param = partial(_same, kept)
    return params


def _same(kept: Conversion) -> Conversion:
    return kept
