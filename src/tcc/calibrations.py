"""Calibrate a network for int8."""

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
    """Compute the scales of a spec's int8 program by running images.

    Args:
        spec: A value that `load` returned, or anything that `load` accepts.
        data: A folder of images, a folder of class folders, or an `.npz` file.
        target: The name of the target to calibrate for.
        weights: A safetensors file. Without it, the weights of a trained network, or random
            weights. The result records which.
        out: The file to write, if any.
        method: The name of a method; `tcc calibrate --help` lists them.
        seed: Seed of random weights. If it is given, random weights are used even for a trained
            network. Without it, random weights have seed 0.
        min_images: The smallest number of images. Images with the same pixels count once.

    Returns:
        The content of the calibration file.

    Warns:
        CalibrationWarning: The images are doubtful, or `build` refuses the int8 model.

    Raises:
        UserError: The input is wrong, an output is not finite, or there are too few images.

    Example:
        document = tcc.calibrate("ddsnet-blood", "zoo/samples", method="minmax")
        print(document)
    """
    call_arguments = locals()
    from tcc import arguments, programs
    from tcc.compiler.data.dataset import read_dataset
    from tcc.compiler.driver import calibration, pipeline
    from tcc.compiler.quant import calibration_document
    from tcc.compiler.quant.calibrate import find_method
    from tcc.compiler.quant.run_options import RunOptions
    from tcc.compiler.support import atomic_files
    from tcc.compiler.support.diagnostics import make_file_span
    from tcc.compiler.targets import devices

    arguments.check(calibrate, call_arguments)
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
    refusal = (
        [f"`build` will refuse this int8 model: {'; '.join(violations)}"] if violations else []
    )
    if out is not None:
        atomic_files.write_file(Path(out), calibration_document.encode(document))
    for message in (*programs.collect_warnings(resolved_spec, data, images, document), *refusal):
        warnings.warn(CalibrationWarning(message), stacklevel=2)
    return document
