"""Options that say where many tasks run."""

from pathlib import Path
from typing import Annotated

import typer

from tcc.compiler.support.task_places import TaskPlace

Dask = Annotated[
    str | None,
    typer.Option(
        metavar="local|ADDRESS",
        show_default=False,
        help="Run on a Dask cluster: processes here, or tcp://HOST:PORT.",
    ),
]
Slurm = Annotated[
    str | None,
    typer.Option(metavar="PARTITION", show_default=False, help="Run as jobs of a Slurm partition."),
]


def place(folder: Path, dask: str | None, slurm: str | None, workers: int) -> TaskPlace:
    """Return where tasks run, as the options say; `folder` is where Slurm's logs go."""
    return TaskPlace(folder, dask, slurm, workers)
