"""Whether an artifact's own files read its outputs as the manifest says."""

from tcc.compiler.bundle import bundle_files
from tcc.compiler.bundle.bundle_folder import MODEL, Bundle
from tcc.compiler.ir.device import Device
from tcc.compiler.support.diagnostics import Diagnostic, UserError, whole_file


def check(bundle: Bundle, device: Device) -> None:
    """Refuse an artifact whose libraries or program decide by other values than the manifest's.

    Raises:
        UserError: They do (E0622); each such file is named.
    """
    points = bundle.manifest.operating_points
    wrong = []
    for name, data in device.operating_point_files(bundle.model, points).items():
        path = bundle.model / name
        if not points and not path.exists():  # a bundle of an older version without its file
            continue
        if not path.exists() or bundle_files.content(path) != data:
            message = "this file reads outputs by another temperature or thresholds"
            help = "build the bundle again, and fit again with `tcc eval --fit`"
            wrong.append(Diagnostic("E0622", message, whole_file(f"{MODEL}/{name}"), help=help))
    if wrong:
        raise UserError(tuple(wrong))
