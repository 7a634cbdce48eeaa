"""Short specs of tests. Missing sections are added."""

from pathlib import Path
from textwrap import dedent

from tcc.compiler.frontend.spec import Spec, load

HEAD = """\
tcc: 1
name: net
input: {image: {shape: [4, 8, 8]}}
output: {y: {}}
"""


def load_spec_text(tmp_path: Path, text: str, **settings: str) -> Spec:
    """Compile a text after adding the keys that it lacks."""
    keys = [line.partition(":")[0] for line in text.splitlines()]
    lines = HEAD.splitlines(keepends=True)
    head = "".join("doc: x\n" if line.partition(":")[0] in keys else line for line in lines)
    path = tmp_path / "net.yaml"
    path.write_text(head + dedent(text))
    return load(path, settings)
