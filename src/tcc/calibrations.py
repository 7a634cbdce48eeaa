"""Calibrating a network for integers."""

import warnings
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.support.diagnostics import CalibrationWarning
from tcc.networks import loaded

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.quant.calibration_document import CalibrationDocument


def calibrate(
    spec: "Spec | str | PathLike[str]",
    data: str | PathLike[str],
    target: str = "onnxruntime",
    weights: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    *,
    method: str = "best",
    seed: int | None = None,
    min_images: int = 1,
) -> "CalibrationDocument":
    """Find the scales of a spec's integer program by running images.

    Args:
        spec: What `load` returned, or what it takes.
        data: A folder of images or of class folders, or an `.npz` file.
        target: The name of a target that is calibrated for.
        weights: A safetensors file; without it, a trained network's own, or random ones, as the
            result says.
        out: The file to write, if any.
        method: The name of a method; `tcc calibrate --help` lists them.
        seed: The seed of random weights, 0 if they are needed; given, they are taken.
        min_images: The fewest images, different by their pixels.

    Returns:
        What a calibration file says. Of what the command warns of, Python warns
        (`CalibrationWarning`).

    Raises:
        UserError: The input is wrong, gives no finite numbers, or holds fewer images.
    """
    called = locals()
    from tcc import arguments, programs
    from tcc.compiler.data.dataset import read
    from tcc.compiler.driver import calibration, pipeline
    from tcc.compiler.quant import calibration_document
    from tcc.compiler.quant.calibrate import known
    from tcc.compiler.quant.run_options import RunOptions
    from tcc.compiler.support import atomic_files
    from tcc.compiler.support.diagnostics import whole_file
    from tcc.compiler.targets import devices

    arguments.check(calibrate, called)
    chosen = loaded(spec)
    here = whole_file("tcc.calibrate")
    bound, way = devices.calibrated_for([(target, here)]), known(method, here)
    wanted = pipeline.CalibrationRequest(bound.name, way, RunOptions(least=min_images))
    given = pipeline.weights_of(chosen, weights, seed)
    images = read(Path(data))
    made = pipeline.calibrate(chosen, given, images, wanted)
    broken = calibration.refused(chosen, given, made, images)
    refusal = [f"`build` refuses these integers: {'; '.join(broken)}"] if broken else []
    if out is not None:
        atomic_files.write_file(Path(out), calibration_document.encode(made))
    for doubt in (*programs.doubts(chosen, data, images, made), *refusal):
        warnings.warn(CalibrationWarning(doubt), stacklevel=2)
    return made
