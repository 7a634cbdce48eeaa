"""Write the JSON Schema of a bundle's manifest from its record classes.

python tools/make_manifest_schema.py [--check]
"""

import json
import sys
from pathlib import Path

import msgspec
from generated import write_or_check

from tcc.compiler.bundle.manifest import NAME, VERSION, Manifest

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "spec" / "schema" / "manifest.schema.json"


def make_schema() -> str:
    """Return the schema."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{NAME} of a tcc bundle, version {VERSION}",
        "description": (Manifest.__doc__ or "").partition("\n")[0],
    }
    return json.dumps({**head, **msgspec.json.schema(Manifest)}, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check({PATH: make_schema()}))
