"""The arguments and options that several sub-commands share, and what they stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.support.diagnostics import fail, typed

if TYPE_CHECKING:
    pass


def spec_names(incomplete: str) -> list[str]:
    """Return the names of known specs that begin so."""
    from tcc.compiler.zoo import shipped

    words = (*shipped.specs(), *(path.parent.name for path in shipped.trained()))
    return [name for name in words if name.startswith(incomplete)]


SpecArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="SPEC",
        show_default=False,
        autocompletion=spec_names,
        help="A spec file or the name of a known spec or trained network; without it, the project "
        "file's.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        show_default=False,
        help="Set a parameter of the spec; may be repeated.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Strict = Annotated[bool, typer.Option("--strict", help="Take warnings about the spec as errors.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; trace our own failures.")]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Weights as safetensors; without them, the project file's, or random ones.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", min=0, show_default=False, help="Take random weights of this seed."
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Images to calibrate with: a folder, a folder of class folders, or an .npz file; "
        "without it, the project file's.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="RUN|none",
        show_default=False,
        help="The run of `tcc train` whose split holds, by its folder or split.csv; without it, "
        "that of the folder in which the weights lie.",
    ),
]
SideOption = Annotated[
    str | None,
    typer.Option(
        "--side",
        metavar="SIDE",
        show_default=False,
        help="Judge by the images of train, val or test; without it, test.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run a program that was not built here, now and later; and take a signature whose key "
        "is not known.",
    ),
]
Isa = Annotated[
    str | None,
    typer.Option(
        "--isa",
        metavar="NAME",
        show_default=False,
        help="Use these instructions, not the best that this processor has: x86-64-v2, ...",
    ),
]


def words(option: str, text: str | None) -> tuple[str, ...]:
    """Return what an option says between commas, nothing where it is not given.

    Raises:
        UserError: One is empty, or comes twice (E0601).
    """
    if text is None:
        return ()
    found = tuple(word.strip() for word in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise fail("E0601", f"`{option}` takes different words", typed(f"{option} {text}"))
    return found
