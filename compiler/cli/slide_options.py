"""Options that the commands of `tcc slide` share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass

SlidesArgument = Annotated[
    list[Path], typer.Argument(metavar="SLIDE", help="Slides' files.", show_default=False)
]
At = Annotated[
    float,
    typer.Option(
        "--at",
        metavar="UM",
        min=0.01,
        max=1000.0,
        show_default=False,
        help="Micrometres of a patch's pixel: those of the images that the network learned from.",
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        min=1,
        show_default=False,
        help="From a patch to the next; without it, `--patch`: less makes patches overlap.",
    ),
]
Mpp = Annotated[
    float | None,
    typer.Option(
        "--mpp",
        metavar="UM",
        min=0.01,
        max=100.0,
        show_default=False,
        help="Micrometres of a pixel of the slide, where its file does not say it, or wrongly.",
    ),
]
MaskMpp = Annotated[
    float,
    typer.Option("--mask-mpp", metavar="UM", min=0.1, max=1000.0, help="The same of the mask."),
]
Rule = Annotated[
    str,
    typer.Option(
        "--rule",
        metavar="RULE",
        help="What is tissue: `any`, what is dark in red, green or blue, or coloured; `wide`, what "
        "is both; `paper`, what is coloured and dark in all three, which loses pale tissue.",
    ),
]
LeastRegion = Annotated[
    float,
    typer.Option(
        "--least-region", metavar="UM2", min=0.0, help="Leave out regions of a smaller area."
    ),
]
FillHoles = Annotated[
    float,
    typer.Option("--fill-holes", metavar="UM2", min=0.0, help="Fill holes up to this area."),
]
Grow = Annotated[
    float, typer.Option("--grow", metavar="UM", min=0.0, help="Let tissue grow by so much.")
]
StepsOption = Annotated[
    Path | None,
    typer.Option(
        "--steps",
        metavar="DIR",
        show_default=False,
        help="Write a picture of each step there.",
    ),
]
PatchOption = Annotated[
    int | None,
    typer.Option(
        "--patch",
        metavar="PIXELS",
        min=1,
        max=8192,
        show_default=False,
        help="The side of a patch, in pixels of `--at`.",
    ),
]
LeastTissue = Annotated[
    float,
    typer.Option(
        "--least-tissue",
        metavar="SHARE",
        min=0.0,
        max=1.0,
        help="The share of tissue from which a patch is taken.",
    ),
]

TumourArea = Annotated[
    list[str] | None,
    typer.Option(
        "--tumour", metavar="CLASS", show_default=False, help="A class of areas that is tumour."
    ),
]
OtherArea = Annotated[
    list[str] | None,
    typer.Option(
        "--other", metavar="CLASS", show_default=False, help="A class of areas that is none."
    ),
]
NormalSlides = Annotated[
    bool, typer.Option("--normal", help="Slides without annotations are free of tumour.")
]
