"""What became of many slides: a table, a document, an exit code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import Diagnostic

if TYPE_CHECKING:
    from tcc.compiler.slides.archive import ArchivedSlide
    from tcc.compiler.slides.slide_tasks import SlideEnd

OTHER_RUN = "E1309"
COUNTS, AREAS = ("patches", "positive", "damaged"), ("positive_mm2", "tissue_mm2")
"""What of a summary is in the table."""


@dataclass
class ArchiveOutcome:
    """What became of slides: documents and problems, by the slides' numbers."""

    slides: "Sequence[ArchivedSlide]"
    documents: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    problems: dict[int, tuple[Diagnostic, ...]] = field(default_factory=dict)
    others: Sequence[Diagnostic] = ()
    left_out: Sequence[Path] = ()
    ours: bool = False

    def state(self, number: int) -> str:
        """Return what became of a slide, in a word or two."""
        if number in self.documents:
            return "done before" if self.documents[number]["finished_before"] else "done"
        codes = [each.code for each in self.problems.get(number, ())]
        if not codes:
            return "not begun"
        return "another run" if codes == [OTHER_RUN] else f"failed: {codes[0]}"

    def end(self, number: int, end: "SlideEnd") -> None:
        """Take in what a slide came to."""
        if end.document is not None:
            self.documents[number] = {**end.document, "folder": str(self.slides[number].place)}
            return
        self.problems[number] = end.problems
        self.ours |= end.code == 1


def table(report: Report, outcome: ArchiveOutcome) -> None:
    """Print what became of each slide."""
    rows = []
    for number, slide in enumerate(outcome.slides):
        found = outcome.documents.get(number)
        counts = [f"{found[name]:,}" if found else "-" for name in COUNTS]
        areas = [f"{found[name]:.2f}" if found else "-" for name in AREAS]
        rows.append((str(slide.path), outcome.state(number), *counts, *areas))
    heads = ("slide", "state", "patches", "tumour", "damaged", "tumour mm2", "tissue mm2")
    report.table(heads, rows)
