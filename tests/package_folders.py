"""The package's folders at the top level, where tests read them.

A checkout without links ends here, with one sentence. In a source distribution the folders are in
`src/tcc`, and links to them are made.
"""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = runpy.run_path(str(ROOT / "src/tcc/source_links.py"), run_name="__main__")["FOLDERS"]
for name in FOLDERS:
    if not (ROOT / name).exists():
        (ROOT / name).symlink_to(f"src/tcc/{name}")
