"""The folders of the package at the top level, as the tests read them.

A checkout without links is refused here. In a source distribution the folders are in `src/tcc`, and
links to them are created.
"""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = runpy.run_path(str(ROOT / "src/tcc/source_links.py"), run_name="__main__")["FOLDERS"]
for name in FOLDERS:
    if not (ROOT / name).exists():
        (ROOT / name).symlink_to(f"src/tcc/{name}")
