"""Write docs/errors.md: every error code and warning, from the table beside the diagnostics.

    python tools/make_errors.py [--check]

`--check` writes nothing and fails when the file is out of date.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from generated import settle

from tcc.compiler.frontend.warnings.warning_kinds import WARNING_KINDS
from tcc.compiler.support.error_codes import ErrorCode, complete_spec, load_error_codes

PATH = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
AREAS = {
    "E01": "The text of a spec",
    "E02": "What a spec says",
    "E03": "What an operation takes",
    "E04": "Limits",
    "E05": "Weights and checkpoints",
    "E06": "Commands, projects, bundles and artifacts",
    "E07": "Images, data sets and calibrations",
    "E08": "Integer programs",
    "E09": "Import of ONNX files",
    "E12": "Training",
    "E13": "Slides and trust",
    "W05": "Warnings about a spec",
}
"""What the first digits of a code are about."""
TEXT = """\
# Errors and warnings

Each mistake has a code, which keeps its meaning: `tcc help E0607` prints its entry here. Commands
end with 0 (done), 1 (tcc or the machine failed), 2 (the input is wrong), 3 (a tool is missing) or
4 (what was built is wrong, and is not written).

Where an example is a part of a spec, `net.yaml` holds what it leaves out as here:

```yaml
{rest}```

Commands run in a folder with that file, an image `image.png`, and class folders of images in
`images`. This page is written by `tools/make_errors.py`.

{areas}
"""


def text() -> str:
    """Return the whole page."""
    return TEXT.format(rest=complete_spec(""), areas="\n\n".join(_areas()))


def _areas() -> Iterator[str]:
    by_code = {kind.code: kind.name for kind in WARNING_KINDS}
    for area, title in AREAS.items():
        listed = [entry for code, entry in load_error_codes().items() if code.startswith(area)]
        yield f"## {area}: {title}"
        yield from (_entry(entry, by_code.get(entry.code, "")) for entry in listed)


def _entry(entry: ErrorCode, kind: str) -> str:
    parts = [f"### {entry.code}", f"**{entry.what}** {entry.why}"]
    if entry.spec:
        parts.append(f"```yaml\n{entry.spec}\n```")
    if entry.command:
        parts.append(f"```sh\n{entry.command}\n```")
    if entry.text:
        parts.append(f"Example: {entry.text}")
    silenced = f" `allow: [{kind}]` silences it." if kind else ""
    return "\n\n".join([*parts, f"What to do: {entry.remedy}{silenced}"])


def main() -> int:
    """Write or check the file; return the exit code."""
    return settle({PATH: text()})


if __name__ == "__main__":
    sys.exit(main())
