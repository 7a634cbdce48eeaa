"""Calibrating a network for integers."""

import warnings
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.support.diagnostics import CalibrationWarning
from tcc.networks import resolve_spec

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
        data: A folder of images, a folder of class folders, or an `.npz` file.
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
    from tcc.compiler.data.dataset import read_dataset
    from tcc.compiler.driver import calibration, pipeline
    from tcc.compiler.quant import calibration_document
    from tcc.compiler.quant.calibrate import find_method
    from tcc.compiler.quant.run_options import RunOptions
    from tcc.compiler.support import atomic_files
    from tcc.compiler.support.diagnostics import make_file_span
    from tcc.compiler.targets import devices

    arguments.check(calibrate, called)
    resolved_spec = resolve_spec(spec)
    span = make_file_span("tcc.calibrate")
    bound, range_method = (
        devices.find_calibrated_device([(target, span)]),
        find_method(method, span),
    )
    request = pipeline.CalibrationRequest(
        bound.name, range_method, RunOptions(min_images=min_images)
    )
    weight_source = pipeline.load_weights(resolved_spec, weights, seed)
    images = read_dataset(Path(data))
    document = pipeline.calibrate(resolved_spec, weight_source, images, request)
    violations = calibration.find_refusals(resolved_spec, weight_source, document, images)
    refusal = [f"`build` refuses these integers: {'; '.join(violations)}"] if violations else []
    if out is not None:
        atomic_files.write_file(Path(out), calibration_document.encode(document))
    for message in (*programs.collect_warnings(resolved_spec, data, images, document), *refusal):
        warnings.warn(CalibrationWarning(message), stacklevel=2)
    return document
