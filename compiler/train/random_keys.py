"""Seeds of random numbers, each for its purpose: no number depends on how many were drawn before.

So a run that was resumed, or has other workers, draws what it would have drawn anyway.
"""

import hashlib

import torch


def key(*words: str | int) -> int:
    """Return the seed, below 2 ** 63, that belongs to words and numbers."""
    said = ":".join(map(str, words)).encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:8], "little") >> 1


def generator(*words: str | int) -> torch.Generator:
    """Return a generator on the CPU with that seed."""
    return torch.Generator().manual_seed(key(*words))
