"""What each argument of the Python functions needs to have an effect.

`option_table` is the same for commands. An argument that differs from its default and lacks what it
needs is refused (E0601). Add a line here for each new argument with a default: a test compares this
table with the functions.
"""

from collections.abc import Callable, Mapping
from inspect import signature

from tcc.compiler.support.diagnostics import make_file_span
from tcc.compiler.support.option_requirements import (
    ALWAYS,
    FRESH_CALIBRATION,
    INT8_TARGET,
    JUDGED_BUILD,
    SOME_BUNDLE,
    SPECS,
    Fact,
    ForbidsAll,
    GivenOptions,
    Needs,
    RequiresAny,
)

ArgumentNeeds = Mapping[str, Needs]


def _allow(*names: str) -> ArgumentNeeds:
    return dict.fromkeys(names, ALWAYS)


_RANDOM = ForbidsAll(("weights",), "the file `weights` gives the weights")
_INTEGERS: ArgumentNeeds = {
    "calibration": (INT8_TARGET,),
    "data": (INT8_TARGET,),
    "method": (
        ForbidsAll(("calibration",), "the file `calibration` already has the scales"),
        INT8_TARGET,
        FRESH_CALIBRATION,
    ),
}

ARGUMENTS: Mapping[str, ArgumentNeeds] = {
    "build": {
        **_INTEGERS,
        **dict.fromkeys(("floors", "allow_few"), (INT8_TARGET,)),
        "mixed": (INT8_TARGET, JUDGED_BUILD),
        "seed": (_RANDOM,),
        **_allow("weights", "out", "precision"),
    },
    "calibrate": {
        "seed": (_RANDOM,),
        **_allow("target", "weights", "out", "method", "min_images"),
    },
    "check": {"precision": (RequiresAny(("targets",)),), **_allow("targets")},
    "evaluate": {
        "weights": (SPECS,),
        "seed": (SPECS, _RANDOM),
        "trust": (SOME_BUNDLE,),
    },
    "guard": _allow("trust"),
    "lower": {
        **_INTEGERS,
        "floors": (INT8_TARGET,),
        "seed": (_RANDOM,),
        **_allow("weights", "precision"),
    },
    "run": {
        "weights": (SPECS,),
        "seed": (SPECS, _RANDOM),
        "trust": (SOME_BUNDLE,),
    },
    "torch": {"seed": (_RANDOM,), **_allow("weights")},
    "train": _allow("recipe", "epochs", "seed", "weights", "threads", "resume"),
    "verify": {"weights": (RequiresAny(("spec",)),), **_allow("spec", "trust")},
}
"""The needs of each argument, by function."""


def check(
    function: Callable[..., object],
    arguments: Mapping[str, object],
    facts: Mapping[Fact, bool] | None = None,
) -> None:
    """Refuse an argument that differs from its default and has no effect.

    Args:
        function: The function that was called.
        arguments: The arguments of the call, by name.
        facts: Facts about the call that are already known.

    Raises:
        UserError: An argument has no effect (E0601).
    """
    needs = ARGUMENTS[function.__name__]
    defaults = {
        name: parameter.default for name, parameter in signature(function).parameters.items()
    }
    passed_arguments = {
        name: arguments[name] for name in needs if arguments[name] != defaults[name]
    }
    span = make_file_span(f"tcc.{function.__name__}")
    GivenOptions(
        passed_arguments, passed_arguments, needs, lambda name, _: name, lambda _: span, facts or {}
    ).check()
