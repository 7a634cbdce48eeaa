"""A bundle's bill of materials: CycloneDX 1.6, with the model as its component, in JSON.

https://cyclonedx.org/docs/1.6/json/ defines each key. There is no time stamp, and the serial number
is of the hashes, so that the same bundle has the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from tcc.compiler.bundle.manifest import BundleFile, Manifest
from tcc.compiler.version import __version__

NAME = "bom.cdx.json"
_MODEL = "model"
"""The reference by which other parts of the document name the model."""


def encode(about: Manifest) -> bytes:
    """Return the document of a bundle, by its manifest alone."""
    body = {
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "tcc", "version": __version__}]
            },
            "component": _model(about),
        },
        "components": [*map(_file, about.files), *_libraries(about)],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": sorted({f"file:{f.path}" for f in about.files})}
        ],
    }
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": _serial(body)}
    return (json.dumps(head | body, indent=1, ensure_ascii=False) + "\n").encode()


def _serial(body: Mapping[str, Any]) -> str:
    """Return a UUID of the document's content (RFC 9562, version 8: of one's own making)."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    number = int.from_bytes(digest[:16])
    number = number & ~(0xF << 76) | 8 << 76
    return UUID(int=number & ~(0x3 << 62) | 2 << 62).urn


def _model(about: Manifest) -> dict[str, Any]:
    doc = {"description": about.model.doc} if about.model.doc else {}
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": about.model.name,
        **doc,
        "modelCard": {
            "modelParameters": {
                "architectureFamily": "neural network",
                "modelArchitecture": about.model.name,
                "inputs": [{"format": _format(about.input.dtype, about.input.shape)}],
                "outputs": [{"format": _format(o.dtype, o.shape)} for o in about.outputs],
            },
            **_analysis(about),
            "considerations": {"technicalLimitations": _limitations(about)},
        },
        "properties": [{"name": f"tcc:{k}", "value": v} for k, v in _properties(about).items()],
    }


def _format(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {' x '.join(map(str, shape))}"


def _properties(about: Manifest) -> dict[str, str]:
    found = {
        "target": about.target,
        "precision": about.precision,
        "spec": about.model.spec,
        "weights": about.weights.digest,
        "weights origin": about.weights.origin,
        **{f"parameter {name}": value for name, value in about.model.params.items()},
    }
    if about.calibration:
        found |= {"calibration": about.calibration.digest, "images": about.calibration.data}
    return found


def _analysis(about: Manifest) -> dict[str, Any]:
    """Return what was measured of the integers, if anything was."""
    measured = about.calibration.measured if about.calibration else None
    if measured is None:
        return {}
    metrics = [
        {
            "type": what,
            "value": f"{value:.9g}",
            "slice": f"{name}, {one.images} images {measured.where}",
        }
        for name, one in measured.outputs.items()
        for what, value in {
            "cosine with float": one.cosine,
            "correlation with float": one.correlation,
            "decisions as in float": one.agreement,
        }.items()
        if value is not None
    ]
    return {"quantitativeAnalysis": {"performanceMetrics": metrics}}


def _limitations(about: Manifest) -> list[str]:
    said = [about.weights.notice] if about.weights.notice else []
    return [*said, *(f"{each.code}: {each.message}" for each in about.warnings)]


def _file(file: BundleFile) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file:{file.path}",
        "name": file.path,
        "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        "properties": [{"name": "tcc:bytes", "value": str(file.bytes)}],
    }


def _libraries(about: Manifest) -> list[dict[str, Any]]:
    """Return what the files were made with; names are as the manifest has them."""
    return [
        {"type": "library", "bom-ref": f"made with {name}", "name": name, "version": version}
        for name, version in about.made_with.items()
    ]
