"""A network and a recipe that train in a second, and images for them."""

import numpy as np
from PIL import Image

SPEC = """\
tcc: 1
name: tiny
params: {width: 6, drop: 0.2}
input: {image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8], mode: stretch}}}}
graph:
  - conv: {filters: width, kernel: 3, padding: 1}
  - batch_norm
  - relu
  - global_avg_pool
  - flatten
  - dropout: {rate: drop}
  - linear: {units: 2}
output: {logits: {activation: softmax, labels: [blue, red]}}
"""
HEADS = """\
tcc: 1
name: heads
input: {image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8], mode: stretch}}}}
graph:
  - conv: {filters: 6, kernel: 3, padding: 1}
  - relu
  - side:
      as: auxiliary
      body: [global_max_pool, flatten, linear: {units: 2}]
  - global_avg_pool
  - flatten
  - linear: {units: 2}
output:
  logits: {activation: softmax, labels: [blue, red]}
  extra: {from: auxiliary, train_only: true}
"""
"""A small version with a training-only head."""
RECIPE = """\
tcc_recipe: 1
batch: 8
epochs: 4
average: 0.9
learning_rate: {peak: 0.3, warmup_epochs: 1}
"""


def draw(path, label, seed):
    """Draw a noisy image, more red or more blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 150, (9, 10, 3))
    levels[:, :, 0 if label == "red" else 2] += 80
    Image.fromarray(levels.astype(np.uint8)).save(path)
