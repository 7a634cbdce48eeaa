"""How a calibration runs its images."""

from dataclasses import dataclass

from tcc.compiler.support.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How images are run: threads and images at a time, which change no bit, and who is told.

    `threads` is None for one a processor; fewer than `min_images` different images are refused.
    """

    threads: int | None = None
    batch: int = 1
    progress: Progress = silent
    min_images: int = 1


DEFAULT_RUN = RunOptions()
