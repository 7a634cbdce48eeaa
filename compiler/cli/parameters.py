"""Commands for Typer: option groups expanded, text passed unchanged, help in two sizes.

Typer converts words with pydantic, even if they are not option values, and loading it takes a third
of the time of `tcc check`. Text and paths are therefore converted here. Typer converts everything
else, and text beyond ASCII, which can contain invalid characters.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tcc.compiler.cli import option_table
from tcc.compiler.support import option_requirements
from tcc.compiler.support.console import echo
from tcc.compiler.support.diagnostics import fail, make_command_span
from tcc.compiler.support.option_requirements import GivenOptions

REPLACED = {
    f"--{name.replace('_', '-')}": f"--floor {name}=VALUE"
    for name in ("min_cosine", "max_drop", "min_correlation", "max_error")
}
"""Replacements for options of older versions."""
_ALL = "tcc.help_all"
"""Key of a context's `meta`: help shows every option."""


def _show_all(context: typer.Context, is_requested: bool) -> None:
    if is_requested and not context.resilient_parsing:
        context.meta[_ALL] = True
        echo(context.get_help())
        raise typer.Exit


def _make_help_all(hidden: bool) -> inspect.Parameter:
    """Return the option `--help-all`; it is hidden if `--help` shows every option already."""
    option = typer.Option(
        "--help-all", is_eager=True, callback=_show_all, help="Show every option.", hidden=hidden
    )
    return inspect.Parameter(
        "help_all",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, option],
    )


def expand(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for Typer in which the fields of option groups are separate options.

    A group is a dataclass as the type of a parameter. Its fields with Typer annotations are options
    or arguments. Every command gets `--help-all` too.
    """
    parameters = inspect.signature(command).parameters
    groups = {
        key: parameter.annotation for key, parameter in parameters.items() if _is_group(parameter)
    }
    members = {key: list(_list_members(group)) for key, group in groups.items()}
    expanded = [
        member.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for key, parameter in parameters.items()
        for member in members.get(key, (parameter,))
    ]
    help_all = _make_help_all(hidden=name not in option_table.MAIN)
    expanded.append(help_all)

    @functools.wraps(command)
    def call(**values: Any) -> None:
        values.pop(help_all.name, None)
        filled = {
            key: group(**{member.name: values.pop(member.name) for member in members[key]})
            for key, group in groups.items()
        }
        command(**values, **filled)

    call.__signature__ = inspect.Signature(expanded)  # type: ignore[attr-defined]
    return call


def _is_group(parameter: inspect.Parameter) -> bool:
    return is_dataclass(parameter.annotation)


def _list_members(group: Any) -> Iterator[inspect.Parameter]:
    """Yield the options and arguments of a group as parameters."""
    for field in fields(group):
        if hasattr(field.type, "__metadata__"):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            yield inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type
            )


@dataclass(frozen=True)
class Conversion:
    """How a parameter is converted: text, paths and defaults here, the rest by Typer."""

    annotation: Any
    create_fallback: Callable[[], Any]

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value for the command."""
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        if self.annotation is str and _is_plain_text(value):
            return value
        if self.annotation is Path and _is_plain_text(
            value
        ):  # no command lets Typer check its paths
            return Path(value)
        if type(value) is self.annotation and isinstance(
            value, int
        ):  # a default; typed words are text
            return value
        if self.annotation == list[str] and many and all(map(_is_plain_text, value)):
            return list(value)
        return self.create_fallback().coerce(value, param=param, ctx=ctx)


def _is_plain_text(value: Any) -> bool:
    return isinstance(value, str) and value.isascii()


class Command(TyperCommand):
    """A subcommand that loads pydantic only for words that need conversion."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, including `--help`."""
        return keep_as_text(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List the arguments and the main options, or every option with `--help-all`."""
        records = [(param, param.get_help_record(ctx)) for param in self.get_params(ctx)]
        arguments = [record for param, record in records if record and not _is_option(param)]
        options = {find_long_name(p): record for p, record in records if record and _is_option(p)}
        main = option_table.MAIN.get(find_command_name(ctx), ())
        visible = (
            options if not main or _ALL in ctx.meta else {name: options[name] for name in main}
        )
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        with formatter.section("Options"):
            formatter.write_dl(list(visible.values()))
        if len(visible) < len(options):
            formatter.write_paragraph()
            with formatter.indentation():
                hidden_count = len(options) - len(visible)
                formatter.write_text(f"--help-all shows {hidden_count} more options.")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help, without an error, if no argument is given but one is required."""
        _show_help_alone(self, ctx, args)
        _refuse_replaced(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, unless one of its options has no effect."""
        with option_requirements.check_options(collect_options(ctx)):
            return super().invoke(ctx)


class CommandGroup(TyperGroup):
    """A group of subcommands that does not load pydantic for its own options."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the group's own parameters, including `--help`."""
        return keep_as_text(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help, without an error, if a required subcommand is missing."""
        _show_help_alone(self, ctx, args)
        return super().parse_args(ctx, args)


def _show_help_alone(command: Any, context: Any, args: list[str]) -> None:
    if not args and command.no_args_is_help and not context.resilient_parsing:
        echo(context.get_help())
        raise typer.Exit


def _refuse_replaced(args: list[str]) -> None:
    """Report the replacement of an option of an older version (E0601)."""
    for argument in args:
        if new := REPLACED.get(argument.partition("=")[0]):
            message = f"`{argument.partition('=')[0]}` is now `{new}`"
            raise fail("E0601", message, make_command_span(argument), help=f"use `{new}`")


def is_bare(context: typer.Context) -> bool:
    """Whether a group is called without a subcommand; options before a subcommand fail (E0601)."""
    if context.invoked_subcommand is None:
        return True
    if collect_options(context).typed:  # only the group would read them
        name = find_command_name(context)
        help = f"such as `tcc {name} {context.invoked_subcommand} --json`"
        raise fail("E0601", "put options after the subcommand", make_command_span(name), help=help)
    return False


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

    def format_option(name: str, value: object) -> str:
        if isinstance(value, bool):
            return name if value else negated[name][0]
        text = value[0] if isinstance(value, list | tuple) and value else value
        return f"{name} {text}"

    needs = option_table.find_needs(find_command_name(context))
    arguments = {p.name: context.params.get(p.name or "")
                 for p in context.command.params if not _is_option(p)}  # fmt: skip
    return GivenOptions(values | arguments, typed_values, needs, format_option, make_command_span)


def list_typed_options(context: typer.Context, without: Collection[str]) -> tuple[str, ...]:
    """Return the options that the user set, as text; paths are absolute, for use elsewhere.

    Args:
        context: The context of the command.
        without: Names of parameters that are left out.
    """
    option_texts: list[str] = []
    for param in context.command.params:
        value = context.params.get(param.name or "")
        if not _is_option(param) or param.name in without or value == param.default:
            continue
        name = find_long_name(param)
        if value is True:
            option_texts.append(name)
        values = value if isinstance(value, list | tuple) else (value,)
        # As one word, because a value can begin with a dash.
        option_texts += [
            f"{name}={option_value.resolve() if isinstance(option_value, Path) else option_value}"
            for option_value in values
            if option_value is not None and not isinstance(option_value, bool)
        ]
    return tuple(option_texts)


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


def keep_as_text(params: list[Any]) -> list[Any]:
    """Pass plain text unchanged to each of Typer's parameters, once."""
    for param in params:
        if hasattr(param, "get_runtime_param") and "get_runtime_param" not in vars(param):
            conversion = Conversion(param.type_descriptor.annotation, param.get_runtime_param)
            param.get_runtime_param = partial(_return_conversion, conversion)
    return params


def _return_conversion(conversion: Conversion) -> Conversion:
    return conversion
