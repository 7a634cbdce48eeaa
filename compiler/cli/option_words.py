"""The options of a command as they would be typed for it elsewhere."""

from collections.abc import Collection
from pathlib import Path

import typer


def typed_again(context: typer.Context, without: Collection[str]) -> tuple[str, ...]:
    """Return the options that are not as they are by default, with paths that hold anywhere.

    Args:
        context: The command's.
        without: Names of parameters that are left out.
    """
    words: list[str] = []
    for param in context.command.params:
        value = context.params.get(param.name or "")
        if param.param_type_name != "option" or param.name in without or value == param.default:
            continue
        name = next(each for each in param.opts if each.startswith("--"))
        if value is True:
            words.append(name)
        values = value if isinstance(value, list | tuple) else (value,)
        # In one word: a value may begin with a dash.
        words += [
            f"{name}={each.resolve() if isinstance(each, Path) else each}"
            for each in values
            if each is not None and not isinstance(each, bool)
        ]
    return tuple(words)
