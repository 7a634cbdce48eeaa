"""The slides of folders, each with the place of its result."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tcc.compiler.slides import slide_results
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, whole_file

FORMATS = (
    ".bif", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms", ".vmu",
)  # fmt: skip
"""Ends of names of what is taken for a slide in a folder; plain images there are mostly labels and
thumbnails, and a DICOM slide is many files: these are named one by one."""
MOST = 100_000
"""Most files of folders that are looked at."""


@dataclass(frozen=True, slots=True)
class ArchivedSlide:
    """A slide's file, and the folder that its result is to lie in."""

    path: Path
    place: Path


@dataclass
class Archive:
    """What was named: slides, other files of folders, and what is wrong with folders."""

    slides: list[ArchivedSlide] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)


def listed(given: Sequence[Path], out: Path) -> Archive:
    """Return the slides among files, and those in folders and what is below these.

    A slide of a folder has its result at the same place below `out`. What is hidden is left out, as
    are results, and whatever else lies in `out`. Links are followed, a folder is looked into once.

    Raises:
        UserError: There is no slide (E1316), or two would have one result (E0601).
    """
    found = Archive()
    for path in given:
        if not path.is_dir():
            found.slides.append(ArchivedSlide(path, out / path.stem))
            continue
        before = len(found.slides)
        _Search(found, path, out).look()
        if len(found.slides) == before and not found.problems:
            ends = ", ".join(FORMATS)
            help = f"slides of a folder end in {ends}; others are named themselves"
            raise fail(
                "E1316", "there is no slide in this folder", whole_file(str(path)), help=help
            )
    _check(found.slides)
    return found


@dataclass
class _Search:
    """Looks through a folder, whose slides' results are to lie in `out`."""

    found: Archive
    root: Path
    out: Path
    known: set[str] = field(default_factory=set)

    def look(self) -> None:
        self.known = {os.path.realpath(self.out)} - {os.path.realpath(self.root)}
        folders = [self.root]
        while folders:
            folder = folders.pop()
            own = os.path.realpath(folder)
            if own in self.known or slide_results.ours(folder) is None:
                continue
            self.known.add(own)  # by its one name, so that links in a circle end
            folders += reversed(list(self._files_of(folder)))

    def _files_of(self, folder: Path) -> Iterator[Path]:
        """Note the files of a folder, and yield the folders in it, by their names."""
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            self.found.problems += _said(error, folder)
            return
        for path in (folder / name for name in names if not name.startswith(".")):
            if path.is_dir():
                yield path
            elif path.suffix.lower() in FORMATS:
                place = self.out / folder.relative_to(self.root) / path.stem
                self.found.slides.append(ArchivedSlide(path, place))
            else:
                self.found.others.append(path)
        if len(self.found.slides) + len(self.found.others) > MOST:
            message = f"more than {MOST:,} files are looked at in no folder"
            raise fail("E1316", message, whole_file(str(self.root)), help="name parts of it")


def _said(error: OSError, folder: Path) -> Iterable[Diagnostic]:
    why = atomic_files.explain(error, folder, "look into this folder")
    return why.diagnostics if isinstance(why, UserError) else (why.diagnostic,)


def _check(slides: Sequence[ArchivedSlide]) -> None:
    """Refuse slides of which one's result would lie in, or in place of, that of another."""
    known: dict[Path, Path] = {}
    for each in slides:
        if each.place in known:
            other = known[each.place]
            message = f"two slides are called {each.path.stem}, and their results would lie in one "
            label = f"the other is {other}"
            raise _clash(f"{message}folder", each.path, label)
        known[each.place] = each.path
    for each in slides:
        for above in each.place.parents:
            if above in known:
                message = "the result of this slide would lie in the result of another"
                raise _clash(message, each.path, f"that of {known[above]}")


def _clash(message: str, path: Path, label: str) -> UserError:
    help = "rename one, or run them with another --output each"
    return fail("E0601", message, whole_file(str(path)), label=label[:300], help=help)
