"""Unusual networks for AXERA chips, and a function that builds packages of them."""

SPEC = """\
tcc: 1
name: odd
input:
  {input}
graph:
  {steps}
output:
  {output}
"""
STEPS = "- conv: {filters: 4, kernel: 3, padding: 1}\n  - relu\n  - {global_avg_pool: {}, as: pooled}\n  - flatten\n  - linear: {units: 3}"
IMAGE = "image: {{shape: [{shape}], preprocess: {{resize: {{size: [{size}]}}, {more}}}}}"
LABELS = 'logits: {activation: softmax, labels: ["日本 \\"x\\"", "café\\\\n", "العربية"]}'
ODD = {
    "grey": (IMAGE.format(shape="1, 8, 12", size="8, 12", more="color: gray, mean: [0.4], std: [0.2]"), LABELS),
    "bgr": (IMAGE.format(shape="3, 6, 9", size="6, 9", more="color: bgr, mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.4]"), LABELS),
    "maximum": (IMAGE.format(shape="3, 8, 8", size="8, 8", more="scale: max"), LABELS),
    "cropped": (IMAGE.format(shape="3, 8, 8", size="6, 7", more="crop: [8, 8]"), LABELS),
    "two": (IMAGE.format(shape="3, 8, 8", size="8, 8", more="mean: [0.5], std: [0.5]"), LABELS + "\n  mean: {from: pooled}"),
}  # fmt: skip


def build(tcc, target, images, *extra_arguments):
    """Build a package of `odd.yaml` without an accuracy floor."""
    return tcc("build", "odd.yaml", "--target", target, "--data", images, "--floor", "min_cosine=0",
               "--floor", "min_correlation=0", *extra_arguments)  # fmt: skip
