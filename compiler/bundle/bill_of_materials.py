"""A bundle's bill of materials: CycloneDX 1.6 in JSON, with the model as its main component.

https://cyclonedx.org/docs/1.6/json/ defines each key. There is no time stamp, and the serial number
derives from the content: the same bundle has the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from tcc.compiler.bundle.manifest import BundleFile, Manifest
from tcc.compiler.version import __version__

NAME = "bom.cdx.json"
_MODEL_REF = "model"
"""The model's reference in the document."""


def encode(manifest: Manifest) -> bytes:
    """Return the document of a bundle, from its manifest alone."""
    body = {
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "tcc", "version": __version__}]
            },
            "component": _describe_model(manifest),
        },
        "components": [*map(_describe_file, manifest.files), *_list_libraries(manifest)],
        "dependencies": [
            {"ref": _MODEL_REF, "dependsOn": sorted({f"file:{f.path}" for f in manifest.files})}
        ],
    }
    head = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": _compute_serial_number(body),
    }
    return (json.dumps(head | body, indent=1, ensure_ascii=False) + "\n").encode()


def _compute_serial_number(body: Mapping[str, Any]) -> str:
    """Return a UUID of the document's content (RFC 9562, version 8: custom)."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    number = int.from_bytes(digest[:16])
    number = number & ~(0xF << 76) | 8 << 76
    return UUID(int=number & ~(0x3 << 62) | 2 << 62).urn


def _describe_model(manifest: Manifest) -> dict[str, Any]:
    doc = {"description": manifest.model.doc} if manifest.model.doc else {}
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL_REF,
        "name": manifest.model.name,
        **doc,
        "modelCard": {
            "modelParameters": {
                "architectureFamily": "neural network",
                "modelArchitecture": manifest.model.name,
                "inputs": [
                    {"format": _describe_tensor(manifest.input.dtype, manifest.input.shape)}
                ],
                "outputs": [
                    {"format": _describe_tensor(o.dtype, o.shape)} for o in manifest.outputs
                ],
            },
            **_describe_analysis(manifest),
            "considerations": {"technicalLimitations": _list_limitations(manifest)},
        },
        "properties": [
            {"name": f"tcc:{k}", "value": v} for k, v in _list_properties(manifest).items()
        ],
    }


def _describe_tensor(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {' x '.join(map(str, shape))}"


def _list_properties(manifest: Manifest) -> dict[str, str]:
    properties = {
        "target": manifest.target,
        "precision": manifest.precision,
        "spec": manifest.model.spec,
        "weights": manifest.weights.digest,
        "weights origin": manifest.weights.origin,
        **{f"parameter {name}": value for name, value in manifest.model.params.items()},
    }
    if manifest.calibration:
        properties |= {
            "calibration": manifest.calibration.digest,
            "images": manifest.calibration.data,
        }
    return properties


def _describe_analysis(manifest: Manifest) -> dict[str, Any]:
    """Return the measured quality of the int8 model; empty if it was not measured."""
    measured = manifest.calibration.measured if manifest.calibration else None
    if measured is None:
        return {}
    metrics = [
        {
            "type": metric,
            "value": f"{figure:.9g}",
            "slice": f"{name}, {quality.images} images {measured.where}",
        }
        for name, quality in measured.outputs.items()
        for metric, figure in {
            "cosine with float": quality.cosine,
            "correlation with float": quality.correlation,
            "decisions as in float": quality.agreement,
        }.items()
        if figure is not None
    ]
    return {"quantitativeAnalysis": {"performanceMetrics": metrics}}


def _list_limitations(manifest: Manifest) -> list[str]:
    notices = [manifest.weights.notice] if manifest.weights.notice else []
    return [*notices, *(f"{warning.code}: {warning.message}" for warning in manifest.warnings)]


def _describe_file(file: BundleFile) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"file:{file.path}",
        "name": file.path,
        "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        "properties": [{"name": "tcc:bytes", "value": str(file.bytes)}],
    }


def _list_libraries(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the libraries that built the files, by the manifest's names."""
    return [
        {"type": "library", "bom-ref": f"made with {name}", "name": name, "version": version}
        for name, version in manifest.made_with.items()
    ]
