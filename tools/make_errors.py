"""Write docs/errors.md: every error code and warning, from compiler/support/error_codes.toml.

    python tools/make_errors.py [--check]

With `--check`, write nothing and fail if the file is out of date.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from generated import write_or_check

from tcc.compiler.frontend.warnings.warning_kinds import WARNING_KINDS
from tcc.compiler.support.error_codes import ErrorCode, complete_spec, load_error_codes

PATH = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
AREAS = {
    "E01": "Syntax of a spec",
    "E02": "Content of a spec",
    "E03": "Arguments of an operation",
    "E04": "Limits",
    "E05": "Weights and checkpoints",
    "E06": "Commands, projects, bundles and artifacts",
    "E07": "Images, datasets and calibrations",
    "E08": "Integer programs",
    "E09": "Import of ONNX files",
    "E12": "Training",
    "E13": "Slides and signatures",
    "W05": "Warnings about a spec",
}
"""The topic of a code, by its first digits."""
TEXT = """\
# Errors and warnings

Look up an error code or a warning. `tcc help E0607` prints the entry of a code, and a code never
changes its meaning. The exit codes of commands are:

- 0: the command succeeded;
- 1: tcc or the machine failed;
- 2: the input is wrong;
- 3: a tool is missing;
- 4: the build is wrong, so it is not written.

If an example shows only a part of a spec, `net.yaml` has these other parts:

```yaml
{rest}```

Commands run in a folder with that file, an image `image.png`, and class folders of images in
`images`. `tools/make_errors.py` writes this page.

{areas}
"""


def make_page() -> str:
    """Return the text of the page."""
    return TEXT.format(rest=complete_spec(""), areas="\n\n".join(_format_areas()))


def _format_areas() -> Iterator[str]:
    by_code = {kind.code: kind.name for kind in WARNING_KINDS}
    for area, title in AREAS.items():
        error_codes = [
            error_code for code, error_code in load_error_codes().items() if code.startswith(area)
        ]
        yield f"## {area}: {title}"
        yield from (
            _format_entry(error_code, by_code.get(error_code.code, ""))
            for error_code in error_codes
        )


def _format_entry(error_code: ErrorCode, kind: str) -> str:
    parts = [f"### {error_code.code}", f"**{error_code.what}** {error_code.why}"]
    if error_code.spec:
        parts.append(f"```yaml\n{error_code.spec}\n```")
    if error_code.command:
        parts.append(f"```sh\n{error_code.command}\n```")
    if error_code.text:
        parts.append(f"Example: {error_code.text}")
    silenced = f" `allow: [{kind}]` silences it." if kind else ""
    return "\n\n".join([*parts, f"What to do: {error_code.remedy}{silenced}"])


def main() -> int:
    """Write or check the file; return the exit code."""
    return write_or_check({PATH: make_page()})


if __name__ == "__main__":
    sys.exit(main())
