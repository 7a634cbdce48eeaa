"""Whether more of some images lie above all reference images than chance explains.

Where images come as the reference images did, one of them is above all `reference` ones with a
probability that follows Beta(1, reference), and the number of those above follows from it whatever
is measured. `compute_evidence` is the likelihood ratio of Beta(4, 1) to that: its expectation is 1,
also when it is looked at after each image. So it reaches 1 / a with a probability of at most a,
however many images there are (Ville, Etude critique de la notion de collectif, 1939). Images that
tie with a reference image are not above it, which lowers the ratio.
"""

RATE = 0.01
"""Most groups of usual images in which a deviation is reported, over all layers together."""
_ABOVE = 4
"""How the alternative is shaped: Beta(4, 1), by which 4 of 5 images are above."""


def is_shifted(above: int, images: int, reference: int, layers: int) -> bool:
    """Return whether so many images are above all reference images that it is reported.

    Args:
        above: How many images are above all reference images.
        images: How many images there are.
        reference: How many reference images there are.
        layers: How many layers are compared; the rate of false reports is of all together.
    """
    return compute_evidence(above, images, reference) >= layers / RATE


def compute_evidence(above: int, images: int, reference: int) -> float:
    """Return the likelihood ratio, which grows with `above`.

    The same multiplications and divisions in the same order are in
    backends/web/site/saturation.js, so that both give the same float64.

    Args:
        above: How many images are above all reference images.
        images: How many images there are.
        reference: How many reference images there are, 1 or more.
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
