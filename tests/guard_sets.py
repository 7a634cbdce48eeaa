"""Synthetic measurements of images for guards."""

import numpy as np

from tcc.compiler.guard.fit import Measurements, fit_guard
from tcc.compiler.guard.plan import GuardPlan

PLAN = GuardPlan((3, 64, 64), 1, "layer", (16, 8, 8), 1)
MIXING = np.random.default_rng(99).normal(size=(19, 19))


def draw_set(random, images, *, shift=0.0, cases=None, spread=0.0, layer_shift=0.0):
    """Draw images whose features are correlated, heavy-tailed and shifted in sigma.

    With `cases`, the images of a case share a part of `spread` sigma.
    """
    noise = random.standard_t(4, (images, 19))
    sums = 1000 + 40 * random.standard_t(4, (images, 16)) + 40 * layer_shift
    if cases is not None:
        number = np.asarray(cases)
        shared = random.normal(size=(number.max() + 1, 19))
        noise = noise + spread * shared[number]
    features = 1000 + 60 * (noise + shift) @ MIXING
    return Measurements(
        "0" * 64,
        np.rint(features).astype(np.int64),
        np.rint(sums).astype(np.int64),
        None if cases is None else list(cases),
    )


def add_changes(measurements):
    """Return form images with two known changes, along two features before they are mixed."""
    features = measurements.features[:50]
    changed = {
        f"change {index}": features + np.rint(60 * sign * MIXING[index]).astype(np.int64)
        for index in range(2)
        for sign in (1,)
    }
    return Measurements(
        measurements.digest, measurements.features, measurements.channel_sums, changed=changed
    )


def fit(random, guard_images, forms=400):
    """Fit a guard to synthetic form images and the given guard images."""
    return fit_guard(PLAN, add_changes(draw_set(random, forms)), guard_images)
