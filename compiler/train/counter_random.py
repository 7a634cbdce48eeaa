"""Counter-based random numbers: each is a function of its purpose, not of earlier draws.

A resumed run, or a run with other workers, therefore draws the same numbers. The numbers of a batch
are vectorised. Each is SplitMix64's output for a key and a counter (Steele, Lea, Flood: Fast
Splittable Pseudorandom Number Generators, OOPSLA 2014). The integer arithmetic makes them
independent of the device and of a sample's batch.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

# The paper's increment: 2**64 over the golden ratio, rounded to an odd number. The multipliers are
# David Stafford's variant 13 of MurmurHash3's finaliser, as in the paper.
_INCREMENT = 0x9E3779B97F4A7C15
_MULTIPLIER_1, _MULTIPLIER_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True, eq=False)
class CounterRandom:
    """Random numbers for N samples; `keys` is int64 (N,), one for each sample."""

    keys: Tensor

    def sample_bits(self, name: str, count: int) -> Tensor:
        """Return `count` values of 64 random bits for each sample, int64 (N, count)."""
        counters = torch.arange(count, device=self.keys.device)
        keys = _hash_bits(self.keys + _to_signed(hash_key(name)))
        return _hash_bits(keys[:, None] + counters * _to_signed(_INCREMENT))

    def sample_uniform(self, name: str, count: int = 1) -> Tensor:
        """Return numbers in [0, 1), float64 (N, count)."""
        # 53 bits, the precision of float64: no value is rounded up to 1.
        return _shift_right(self.sample_bits(name, count), 11).to(torch.float64) * 2.0**-53

    def sample_range(self, name: str, low: float, high: float) -> Tensor:
        """Return numbers in [low, high), float64 (N,)."""
        return self.sample_uniform(name)[:, 0] * (high - low) + low

    def sample_chance(self, name: str, probability: float) -> Tensor:
        """Return True with the given probability for each sample, bool (N,)."""
        return self.sample_uniform(f"chance of {name}")[:, 0] < probability


def create_random(samples: Tensor, *key: str | int) -> CounterRandom:
    """Return the random numbers of samples, int64 (N,), for a purpose named by `key`."""
    return CounterRandom(_hash_bits(samples * _to_signed(_INCREMENT) + _to_signed(hash_key(*key))))


def hash_key(*key: str | int) -> int:
    """Return a 64-bit hash of a key of words and numbers, as an unsigned integer."""
    # Not `hash`, which differs between processes.
    text = ":".join(map(str, key)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def _hash_bits(bits: Tensor) -> Tensor:
    bits = _shift_right(bits, 30).bitwise_xor_(bits).mul_(_to_signed(_MULTIPLIER_1))
    bits = _shift_right(bits, 27).bitwise_xor_(bits).mul_(_to_signed(_MULTIPLIER_2))
    return _shift_right(bits, 31).bitwise_xor_(bits)


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Return bits shifted right as unsigned numbers (logical shift)."""
    # PyTorch has only an arithmetic 64-bit shift, which copies the sign bit.
    return (bits >> count).bitwise_and_((1 << (64 - count)) - 1)


def _to_signed(unsigned: int) -> int:
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned


def derive_seed(*key: str | int) -> int:
    """Return a seed below 2 ** 63 for a key of words and numbers."""
    return hash_key(*key) >> 1


def create_generator(*key: str | int) -> torch.Generator:
    """Return a CPU generator with the seed of `key`."""
    return torch.Generator().manual_seed(derive_seed(*key))
