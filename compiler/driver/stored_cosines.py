"""What integers lose, as calibration files and bundles have stored it: an output's cosine each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.bundle import bundle_folder
from tcc.compiler.bundle.manifest_checks import Known
from tcc.compiler.bundle.signature_check import SignaturePolicy
from tcc.compiler.quant import calibration_document
from tcc.compiler.reference.accuracy_floor import Qualities
from tcc.compiler.support.diagnostics import fail, whole_file


@dataclass(frozen=True, slots=True)
class StoredCosine:
    """The mean cosine of an output's integers and floats, over images of one data set.

    `data` is the digest of that set, `target` what was calibrated or built for.
    """

    network: str
    target: str
    data: str
    output: str
    cosine: float


def read(path: Path, known: Known, policy: SignaturePolicy) -> tuple[StoredCosine, ...]:
    """Return the cosines of a calibration file, or of a bundle.

    Args:
        path: The file, or the bundle's folder.
        known: Says what the precisions of targets are.
        policy: Which signatures of bundles are taken.

    Raises:
        UserError: It is neither, or is damaged (E0603, E0620 to E0623, E0730), or holds no cosine
            (E1280).
    """
    found = tuple(_bundle(path, known, policy) if path.is_dir() else _calibration(path))
    if found:
        return found
    message = "this says nothing of any cosine of integers and floats"
    help = "calibrate with more images, some of which are held out, or give a bundle of integers"
    raise fail("E1280", message, whole_file(str(path)), help=help)


def _calibration(path: Path) -> Iterator[StoredCosine]:
    about = calibration_document.read(path)
    judged = about.judged.get(about.used, {})
    yield from _each(about.model.name, about.target, about.data.digest, judged)


def _bundle(folder: Path, known: Known, policy: SignaturePolicy) -> Iterator[StoredCosine]:
    about = bundle_folder.read(folder, known, policy).manifest
    found = about.calibration
    if found and found.measured:
        yield from _each(about.model.name, about.target, found.data, found.measured.outputs)


def _each(network: str, target: str, data: str, judged: Qualities) -> Iterator[StoredCosine]:
    for output, quality in judged.items():
        if quality.cosine is not None:
            yield StoredCosine(network, target, data, output, quality.cosine)
