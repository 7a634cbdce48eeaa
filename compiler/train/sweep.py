"""Sweeps: one training for each combination of spec parameters, recipe keys and seeds.

Example of a sweep file:

tcc_sweep: 1
set: {growth: [16, 32]}                     # parameters of the spec, as with --set
recipe: {learning_rate.peak: [0.05, 0.1]}   # keys of the recipe, sections before dots
seeds: [0, 1, 2]
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tcc.compiler.driver.pipeline import format_setting
from tcc.compiler.frontend import yaml
from tcc.compiler.support import regular_files, task_runners
from tcc.compiler.support.diagnostics import Span, UserError, fail
from tcc.compiler.train import recipe, run_folder
from tcc.compiler.train import recipe as recipes
from tcc.compiler.train.recipe_records import Recipe

VERSION = 1
MAX_TRIALS = 1000
KEYS = ("tcc_sweep", "set", "recipe", "seeds")


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of a sweep: its name, spec settings, recipe and seed.

    `varied_settings` has the varied values as text, by key.
    """

    name: str
    varied_settings: Mapping[str, str]
    settings: tuple[str, ...]
    recipe: Recipe
    seed: int


@dataclass(frozen=True, slots=True)
class _Axis:
    """A varied key, and its values with their locations."""

    section: str
    key: str
    options: tuple[tuple[Any, Span], ...]


def read_sweep(path: Path, base: Recipe) -> tuple[Trial, ...]:
    """Return the trials of a sweep file, in the order of its keys and values.

    Raises:
        UserError: The file cannot be read, is not a sweep (E1232), or yields an invalid recipe
            (E1232).
    """
    content = regular_files.read_file(path, "read the sweep", recipes.MAX_BYTES + 1)
    tree = yaml.parse(content[: recipes.MAX_BYTES], str(path))
    axes = tuple(_parse_axes(tree))
    count = 1
    for axis in axes:
        count *= len(axis.options)
    if count > MAX_TRIALS:
        raise _build_error(
            f"this sweep has {count:,} trainings, the limit is {MAX_TRIALS:,}", tree.span
        )
    # All names have the same length, so that folders sort in the order of the sweep.
    width = len(str(count))
    combinations = enumerate(product(*(axis.options for axis in axes)), 1)
    return tuple(
        _build_trial(f"{n:0{width}}", axes, combination, base) for n, combination in combinations
    )


def _parse_axes(tree: yaml.Tree) -> Iterator[_Axis]:
    if not isinstance(tree, yaml.Mapping):
        raise _build_error("a sweep must be a mapping of keys", tree.span)
    version = tree.get("tcc_sweep")
    if not isinstance(version, yaml.Scalar) or version.value != VERSION:
        at = version.span if version else tree.span
        raise _build_error("a sweep must contain `tcc_sweep: 1`", at)
    for key, node in tree.items:
        match key.value, node:
            case "tcc_sweep", _:
                pass
            case ("set" | "recipe") as part, yaml.Mapping(items=items):
                for name, option_list in items:
                    yield _Axis(part, str(name.value), _parse_values(str(name.value), option_list))
            case "seeds", _:
                yield _Axis("seeds", "seed", tuple(_parse_seeds(node)))
            case _:
                raise _build_error(
                    f"`{str(key.value)[:80]}` is not a known key, or its value is not a mapping",
                    key.span,
                )


def _parse_values(name: str, tree: yaml.Tree) -> tuple[tuple[Any, Span], ...]:
    if not isinstance(tree, yaml.Sequence) or not tree.items:
        raise _build_error(f"`{name}` must be a list of values", tree.span)
    return tuple((yaml.to_plain(item), item.span) for item in tree.items)


def _parse_seeds(tree: yaml.Tree) -> Iterator[tuple[Any, Span]]:
    for seed, at in _parse_values("seeds", tree):
        if type(seed) is not int or seed < 0:
            raise _build_error("a seed must be an integer of at least 0", at)
        yield seed, at


def _build_trial(
    name: str, axes: tuple[_Axis, ...], combination: tuple[tuple[Any, Span], ...], base: Recipe
) -> Trial:
    varied_settings = {
        axis.key: format_setting(option)
        for axis, (option, _) in zip(axes, combination, strict=True)
    }
    settings, recipe, seed = [], base, 0
    changes: dict[str, tuple[Any, Span]] = {}
    for axis, (option, at) in zip(axes, combination, strict=True):
        match axis.section:
            case "set":
                settings.append(f"{axis.key}={format_setting(option)}")
            case "recipe":
                changes[axis.key] = option, at
            case _:
                seed = option
    if changes:
        recipe = _update_recipe(base, changes)
    return Trial(name, varied_settings, tuple(settings), recipe, seed)


def _update_recipe(base: Recipe, changes: Mapping[str, tuple[Any, Span]]) -> Recipe:
    """Return a recipe with changed values of some keys.

    Raises:
        UserError: The result is not a valid recipe (E1232).
    """
    document = json.loads(recipes.render_json(base))
    for key, (option, at) in changes.items():
        *sections, leaf_key = key.split(".")
        holder = document
        for section in sections:
            holder = holder.setdefault(section, {})
            if not isinstance(holder, dict):
                raise _build_error(f"`{key}`: `{section}` is not a section of a recipe", at)
        holder[leaf_key] = option
    for section, keys in recipe.CONDITIONAL_KEYS.items():
        for key, (selector, choices) in keys.items():
            section_keys = document.get(section, {})
            if section_keys.get(selector) not in choices and f"{section}.{key}" not in changes:
                section_keys.pop(key, None)  # the base's value is for another choice
    try:
        return recipes.parse_recipe(json.dumps(document), "recipe.json")
    except UserError as error:
        (last_at,) = [at for _, at in list(changes.values())[-1:]]
        reason = error.diagnostics[0].message
        names = ", ".join(
            f"{key}: {format_setting(option)}" for key, (option, _) in changes.items()
        )
        raise _build_error(f"with {names}, {reason}", last_at) from None


def _build_error(message: str, at: Span) -> UserError:
    help = f"the keys are {', '.join(KEYS)}; see the example in docs/training.md"
    return fail("E1232", message, at, help=help)


@dataclass(frozen=True, slots=True)
class TrialCommand:
    """The arguments of `tcc` for a training, and its folder, which all machines share."""

    arguments: tuple[str, ...]
    folder: str


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """The result of a training: its report as plain data, or None and its error text."""

    report: Any
    error_text: str


def run_trial(command: TrialCommand) -> TrialOutcome:
    """Start or resume a training; a finished training is not run again."""
    folder = Path(command.folder)
    # A stopped sweep starts all trainings again; the folders show which are finished or begun.
    begun = any((folder / name).exists() for name in (run_folder.CHECKPOINT, run_folder.REPORT))
    ended_process = task_runners.run_command([*command.arguments, *(["--resume"] if begun else [])])
    if ended_process.code:
        return TrialOutcome(None, ended_process.err.strip()[-2000:])
    return TrialOutcome(json.loads((folder / run_folder.REPORT).read_bytes()), "")
