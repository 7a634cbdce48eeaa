"""The images that count for a promise: one of each case (patient, lesion, slide)."""

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.driver.labelled_images import LabelledImages


def select_counted(images: LabelledImages, members: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the indices of the images that count, among some members.

    The images of a case are alike, so one of them counts: that with the smallest digest, a choice
    that does not depend on its scores. Without cases, every image counts.

    Args:
        images: The images.
        members: Which images may count (images,).
    """
    indices = np.flatnonzero(members)
    if not images.cases:
        return indices
    first_by_case: dict[str, int] = {}
    digests = [item.digest for item in images.dataset.items]
    for index in sorted(indices.tolist(), key=digests.__getitem__):
        first_by_case.setdefault(images.cases[index], index)
    return np.array(sorted(first_by_case.values()), np.intp)


def has_shared_cases(images: LabelledImages, members: NDArray[np.bool_]) -> bool:
    """Return whether a case has images among the members and others that are not."""
    cases = np.array(images.cases)
    return bool(images.cases) and not set(cases[members]).isdisjoint(cases[~members])


def get_unit(images: LabelledImages) -> str:
    """Return what is counted."""
    return "cases" if images.cases else "images"
