"""The site: every Markdown page of the project, as it lies in the repository (`make docs`)."""

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

from tcc.compiler.version import __version__

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    "Use": [
        "docs/tutorial",
        "docs/commands",
        "spec/reference",
        "docs/targets",
        "docs/new-target",
        "docs/support",
        "docs/web",
        "docs/agreement",
        "docs/new-images",
        "docs/security",
        "docs/pulsar",
        "docs/measuring",
        "docs/python",
        "docs/training",
        "docs/slides",
        "docs/from-pytorch",
        "docs/errors",
        "docs/messages",
        "docs/glossary",
    ],
    "Examples": ["docs/examples/README", "docs/examples/*"],
    "Understand": ["docs/architecture", "spec/passes", "docs/decisions/README", "docs/decisions/*"],
    "Trained networks": ["zoo/trained/*/card", "docs/experiments/*"],
    "Carry on": ["CONTRIBUTING", "CHANGELOG", "zoo/samples/SOURCE", "zoo/cells/SOURCE"],
}
"""The pages in the order of the site's list, under their headings."""

project = "tcc"
version = release = __version__
project_copyright = "the authors of tcc"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/**/*.md",
    "spec/*.md",
    "zoo/*/*.md",
    "zoo/trained/*/*.md",
]
exclude_patterns = [".*", "build", "dist", "src", "compiler", "backends", "tests", "tools"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # parts of YAML that stand for whole files
nitpicky = True
html_theme = "furo"
html_title = f"tcc {version}"
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None


def suited(app: Sphinx, page: str, text: list[str]) -> None:
    """Make a page one of the site: it has no folders to link to, and the front page lists all."""
    folder = Path(app.env.doc2path(page)).parent
    text[0] = re.sub(
        r"\[([^\]]+)\]\(([^)\s#:]+)\)",
        lambda link: link[1] if (folder / link[2]).is_dir() else link[0],
        text[0],
    )
    if page == root_doc:
        trees = (
            f"```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n"
            + "\n".join(pages)
            + "\n```"
            for caption, pages in SECTIONS.items()
        )
        text[0] += "\n\n" + "\n\n".join(trees) + "\n"


def front(app: Sphinx, failed: Exception | None) -> None:
    """Let the site begin at index.html."""
    if not failed:
        shutil.copyfile(app.outdir / "README.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Connect the two."""
    app.connect("source-read", suited)
    app.connect("build-finished", front)
