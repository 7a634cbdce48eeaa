"""Options for running calibration images."""

from dataclasses import dataclass

from tcc.compiler.support.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options for running calibration images. They do not change the result.

    Attributes:
        threads: Number of threads; None for one per processor.
        batch: Images per task.
        progress: Called as images are completed.
        min_images: Minimum number of different images; fewer are an error.
    """

    threads: int | None = None
    batch: int = 1
    progress: Progress = silent
    min_images: int = 1


DEFAULT_RUN = RunOptions()
