"""A bundle that stays what it is while it is in use, or what is done with it is done anew.

Builds into one folder replace it whole. What was found out meanwhile may be of neither bundle: it
counts only where one and the same folder stood there from its beginning to its end. Builds of one
network give the same bytes, so that what stands there now is mostly the bundle that it was.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from tcc.compiler.bundle import bundle_folder
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

T = TypeVar("T")
TRIES = 10
"""How often something is done with a bundle that others replace with the same one meanwhile."""


def undisturbed(bundle: Bundle, work: Callable[[Bundle], T]) -> T:
    """Return what is found out of a bundle that nobody replaced meanwhile.

    Args:
        bundle: A bundle that was read; one that is not in its place yet is nobody else's.
        work: What is done with it: more than once, where the same bundle took its place meanwhile.

    Returns:
        What `work` gives.

    Raises:
        UserError: Another bundle took its place (E0622), or the same one `TRIES` times; and what
            `work` raises of a bundle that stood still.
    """
    for _ in range(TRIES):
        bundle = bundle if _stands(bundle) else _again(bundle)
        try:
            found = work(bundle)
        except (UserError, OSError):
            # A file may have been looked for in the moment between the two folders.
            if _stands(bundle):
                raise
        else:
            if _stands(bundle):
                return found
    raise _taken(bundle)


def _stands(bundle: Bundle) -> bool:
    return bundle.seen is None or bundle.seen == bundle_folder.identity(bundle.folder)


def _again(bundle: Bundle) -> Bundle:
    """Return the bundle that took its place, where it is the same to the byte."""
    atomic_files.recover(bundle.folder)  # it waits for whoever replaces the folder
    seen = bundle_folder.identity(bundle.folder)
    with suppress(UserError):
        if seen and not any(_changes(bundle)):
            return replace(bundle, seen=seen)
    raise _taken(bundle)


def _changes(bundle: Bundle) -> Iterator[object]:
    """Yield what is not, to the byte, what the bundle was when it was read."""
    folder, about = bundle.folder, bundle.manifest
    yield bundle_folder.stated(folder) != about
    yield from (bundle_folder.problem(folder, file) for file in about.files)
    yield from bundle_folder.unlisted(folder, about)


def _taken(bundle: Bundle) -> UserError:
    message = "another bundle took this one's place while it was in use"
    return fail("E0622", message, whole_file(str(bundle.folder)), help="run the command again")
