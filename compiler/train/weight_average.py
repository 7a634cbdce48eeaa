"""The moving average of the weights (EMA), which is what is judged and kept."""

from collections.abc import Mapping

import torch
from torch import Tensor


class WeightAverage:
    """Averages of tensors by name; the statistics of batch norms are among them.

    The decay grows to its value as (1 + n) / (10 + n) over n steps, so that the random weights of
    the start are soon forgotten.
    """

    def __init__(self, decay: float, tensors: Mapping[str, Tensor]) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take in the tensors after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = [tensors[name].detach() for name in self.tensors]
        torch._foreach_lerp_(list(self.tensors.values()), now, 1 - decay)
