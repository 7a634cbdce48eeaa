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
_INCREMENT = 0x9E3779B97F4A7C15
_MULTIPLIER_1, _MULTIPLIER_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True, eq=False)
class CounterRandom:
    """The random numbers of some samples: `keys` is int64 (N,), one of each sample."""

    keys: Tensor

    def sample_bits(self, name: str, count: int) -> Tensor:
        """Return 64 random bits for each of `count` places of each sample, int64 (N, count)."""
        counters = torch.arange(count, device=self.keys.device)
        keys = _hash_bits(self.keys + _to_signed(hash_words(name)))
        return _hash_bits(keys[:, None] + counters * _to_signed(_INCREMENT))

    def sample_uniform(self, name: str, count: int = 1) -> Tensor:
        """Return numbers from 0 to below 1, float64 (N, count)."""
        # 53 bits: as many as a float64 holds, so that nothing is rounded and 1 never comes out.
        return _shift_right(self.sample_bits(name, count), 11).to(torch.float64) * 2.0**-53

    def sample_range(self, name: str, low: float, high: float) -> Tensor:
        """Return numbers between two, float64 (N,)."""
        return self.sample_uniform(name)[:, 0] * (high - low) + low

    def sample_chance(self, name: str, probability: float) -> Tensor:
        """Return whether each sample is one of a share, bool (N,)."""
        return self.sample_uniform(f"chance of {name}")[:, 0] < probability


def create_random(samples: Tensor, *words: str | int) -> CounterRandom:
    """Return the random numbers of samples, int64 (N,), that belong to some words and numbers."""
    return CounterRandom(
        _hash_bits(samples * _to_signed(_INCREMENT) + _to_signed(hash_words(*words)))
    )


def hash_words(*words: str | int) -> int:
    """Return the 64 bits, as a number from 0 on, that belong to some words and numbers."""
    # Not `hash`, which is another in each process.
    text = ":".join(map(str, words)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def _hash_bits(bits: Tensor) -> Tensor:
    bits = _shift_right(bits, 30).bitwise_xor_(bits).mul_(_to_signed(_MULTIPLIER_1))
    bits = _shift_right(bits, 27).bitwise_xor_(bits).mul_(_to_signed(_MULTIPLIER_2))
    return _shift_right(bits, 31).bitwise_xor_(bits)


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Shift to the right with zeros coming in, as unsigned numbers are."""
    # PyTorch has no unsigned 64-bit shift; its own brings copies of the sign in.
    return (bits >> count).bitwise_and_((1 << (64 - count)) - 1)


def _to_signed(unsigned: int) -> int:
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned


def derive_seed(*words: str | int) -> int:
    """Return the seed, below 2 ** 63, that belongs to words and numbers."""
    return hash_words(*words) >> 1


def create_generator(*words: str | int) -> torch.Generator:
    """Return a generator on the CPU with that seed."""
    return torch.Generator().manual_seed(derive_seed(*words))
