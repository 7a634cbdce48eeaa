"""Test whether more images exceed all reference images than chance explains.

If the images have the same distribution as the reference images, the probability that one exceeds
all `reference` ones follows Beta(1, reference). This gives the distribution of their number,
whatever is measured. `compute_evidence` is the likelihood ratio of Beta(4, 1) to it. Its
expectation is 1, also if it is evaluated after each image. So it reaches 1 / a with a probability
of at most a, for any number of images (Ville, Etude critique de la notion de collectif, 1939).
Images that tie with a reference image do not exceed it, which lowers the ratio.
"""

RATE = 0.01
"""Maximum share of normal groups of images with a reported deviation, over all layers together."""
_ABOVE = 4
"""Shape of the alternative: Beta(4, 1), with 4 of 5 images above."""


def is_shifted(above: int, images: int, reference: int, layers: int) -> bool:
    """Return whether enough images exceed all reference images for a report.

    Args:
        above: Number of images that exceed all reference images.
        images: Number of images.
        reference: Number of reference images.
        layers: Number of compared layers; the rate of false reports applies to all together.
    """
    return compute_evidence(above, images, reference) >= layers / RATE


def compute_evidence(above: int, images: int, reference: int) -> float:
    """Return the likelihood ratio, which grows with `above`.

    backends/web/site/saturation.js has the same multiplications and divisions in the same order,
    so that both give the same float64.

    Args:
        above: Number of images that exceed all reference images.
        images: Number of images.
        reference: Number of reference images, at least 1.
    """
    ratio = _ABOVE / reference * (above + 1) * (above + 2) * (above + 3)
    for i in range(1, max(reference, _ABOVE) + 1):
        if i > _ABOVE:
            ratio *= images + i
        elif i > reference:
            ratio /= images + i
        if i < reference:
            ratio /= images - above + i
    return ratio
