"""Write the JSON Schema of a bundle's manifest, which is made of its records.

python tools/make_manifest_schema.py [--check]
"""

import json
import sys
from pathlib import Path

import msgspec
from generated import settle

from tcc.compiler.bundle.manifest import NAME, VERSION, Manifest

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "spec" / "schema" / "manifest.schema.json"


def text() -> str:
    """Return the schema."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{NAME} of a tcc bundle, version {VERSION}",
        "description": (Manifest.__doc__ or "").partition("\n")[0],
    }
    return json.dumps({**head, **msgspec.json.schema(Manifest)}, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(settle({PATH: text()}))
