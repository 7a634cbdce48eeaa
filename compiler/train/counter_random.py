"""Random numbers that are a function of what they are for: none depends on how many were drawn.

So a run that was resumed, or has other workers, draws what it would have drawn anyway. Those of a
batch are vectorised. Each is SplitMix64's output for a key and a counter (Steele, Lea, Flood: Fast
Splittable Pseudorandom Number Generators, OOPSLA 2014), in whole numbers alone: so neither the
device, nor the batch that a sample is in, has a say.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

# 2**64 over the golden ratio, odd: the step that the paper takes. The other two are David
# Stafford's variant 13 of MurmurHash3's finaliser, which the paper's generator uses as well.
_STEP = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True, eq=False)
class Draws:
    """The random numbers of some samples: `keys` is int64 (N,), one of each sample."""

    keys: Tensor

    def bits(self, name: str, count: int) -> Tensor:
        """Return 64 random bits for each of `count` places of each sample, int64 (N, count)."""
        places = torch.arange(count, device=self.keys.device)
        keys = _mixed(self.keys + _signed(word(name)))
        return _mixed(keys[:, None] + places * _signed(_STEP))

    def uniform(self, name: str, count: int = 1) -> Tensor:
        """Return numbers from 0 to below 1, float64 (N, count)."""
        # 53 bits: as many as a float64 holds, so that nothing is rounded and 1 never comes out.
        return _shifted(self.bits(name, count), 11).to(torch.float64) * 2.0**-53

    def between(self, name: str, low: float, high: float) -> Tensor:
        """Return numbers between two, float64 (N,)."""
        return self.uniform(name)[:, 0] * (high - low) + low

    def chance(self, name: str, probability: float) -> Tensor:
        """Return whether each sample is one of a share, bool (N,)."""
        return self.uniform(f"chance of {name}")[:, 0] < probability


def draws(samples: Tensor, *words: str | int) -> Draws:
    """Return the random numbers of samples, int64 (N,), that belong to some words and numbers."""
    return Draws(_mixed(samples * _signed(_STEP) + _signed(word(*words))))


def word(*words: str | int) -> int:
    """Return the 64 bits, as a number from 0 on, that belong to some words and numbers."""
    # Not `hash`, which is another in each process.
    said = ":".join(map(str, words)).encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:8], "little")


def _mixed(x: Tensor) -> Tensor:
    x = _shifted(x, 30).bitwise_xor_(x).mul_(_signed(_FIRST))
    x = _shifted(x, 27).bitwise_xor_(x).mul_(_signed(_SECOND))
    return _shifted(x, 31).bitwise_xor_(x)


def _shifted(x: Tensor, count: int) -> Tensor:
    """Shift to the right with zeros coming in, as unsigned numbers are."""
    # PyTorch has no unsigned 64-bit shift; its own brings copies of the sign in.
    return (x >> count).bitwise_and_((1 << (64 - count)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def key(*words: str | int) -> int:
    """Return the seed, below 2 ** 63, that belongs to words and numbers."""
    return word(*words) >> 1


def generator(*words: str | int) -> torch.Generator:
    """Return a generator on the CPU with that seed."""
    return torch.Generator().manual_seed(key(*words))
