"""Records of a recipe; its schema, reader and documentation are generated from them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tcc.compiler.ir.graph import Input
from tcc.compiler.support.diagnostics import Span, fail

VERSION = 1
MAX_EPOCHS, MAX_BATCH = 100_000, 65_536


def define_setting(default: Any, description: str, /, **rules: Any) -> Any:
    """Return the field of a key, with its default, description and JSON Schema rules."""
    return field(default=default, metadata={**rules, "description": description})


def _define_share(default: float, text: str) -> Any:
    return define_setting(default, text, minimum=0, maximum=1)


def _define_probability(default: float) -> Any:
    return _define_share(default, "The share of images that it is applied to.")


def _define_amount(default: Any, text: str, maximum: float) -> Any:
    return define_setting(default, text, minimum=0, maximum=maximum)


def _define_pair(default: tuple[float, float], text: str, minimum: float, maximum: float) -> Any:
    number = {"type": "number", "exclusiveMinimum": minimum, "maximum": maximum}
    return define_setting(default, text, items=number, minItems=2, maxItems=2)


def _define_shape(default: float, text: str) -> Any:
    return define_setting(default, text, minimum=0, maximum=100)


Schedule = Literal["constant", "cosine", "exponential", "steps"]
"""Schedule of the learning rate after the warm-up."""


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The recipe's `learning_rate:`."""

    peak: float = define_setting(0.1, "The highest rate, after the warm-up.", exclusiveMinimum=0)
    schedule: Schedule = define_setting(
        "cosine",
        "`cosine` decays to `final` along half a cosine wave; `exponential` multiplies by `decay` "
        "after each epoch, `steps` at each of `at_epochs`; `constant` does not change.",
    )
    warmup_epochs: float = define_setting(
        0.0,
        "Epochs in which the rate rises linearly from 0; at most half of the run.",
        minimum=0,
    )
    final: float = define_setting(
        0.0, "The final rate as a share of `peak` (cosine).", minimum=0, maximum=1
    )
    decay: float = define_setting(
        0.1, "The factor of the rate (exponential, steps).", exclusiveMinimum=0, maximum=1
    )
    at_epochs: tuple[int, ...] = define_setting(
        (), "The epochs, counted from 0, at whose start the rate decays (steps)."
    )


OptimizerKind = Literal["sgd", "adam", "adamw"]
"""Name of an optimiser."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The recipe's `optimizer:`."""

    kind: OptimizerKind = define_setting(
        "sgd", "`adam` adds the decay to the gradient; `adamw` subtracts it from the weights."
    )
    momentum: float = define_setting(0.9, "The momentum (sgd).", minimum=0, exclusiveMaximum=1)
    nesterov: bool = define_setting(True, "Whether to use Nesterov momentum (sgd).")
    beta1: float = define_setting(
        0.9, "The decay of the mean of gradients (adam, adamw).", minimum=0, exclusiveMaximum=1
    )
    beta2: float = define_setting(
        0.999,
        "The decay of the mean of squared gradients (adam, adamw).",
        minimum=0,
        exclusiveMaximum=1,
    )
    weight_decay: float = define_setting(
        0.0005,
        "The decay of tensors with two or more dimensions: kernels and matrices, but not biases "
        "and batch norms.",
        minimum=0,
    )


LossKind = Literal["cross_entropy", "focal", "attention"]
"""Name of a loss."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The recipe's `loss:`."""

    kind: LossKind = define_setting("cross_entropy", "The loss function.")
    label_smoothing: float = define_setting(
        0.0, "The share of each target to spread over all classes.", minimum=0, maximum=0.9
    )
    gamma: float = define_setting(
        2.0, "The exponent (focal, attention).", exclusiveMinimum=0, maximum=100
    )
    alpha: float | None = define_setting(
        None,
        "The weight of positive classes; others have 1 - alpha (focal) or 1 (attention).",
        exclusiveMinimum=0,
        maximum=1000,
    )
    positive: tuple[str, ...] = define_setting(
        (), "The positive classes; with two classes, by default the second."
    )
    balanced: bool = define_setting(
        False, "Weight the classes so that all have the same total weight."
    )
    class_weights: Mapping[str, float] = field(
        default_factory=dict,
        metadata={
            "description": "Weights by class name; 1 for other classes. They are scaled so that "
            "their mean over the training images is 1."
        },
    )
    auxiliary: Mapping[str, float] = field(
        default_factory=dict,
        metadata={"description": "Loss weights of train-only outputs, by name; 0.3 by default."},
    )


@dataclass(frozen=True, slots=True)
class Mixup:
    """Mixup and cutmix of batches; if both are enabled, each batch uses one of them."""

    alpha: float = _define_shape(0.2, "Shape of mixup's Beta distribution; 0 disables mixup.")
    cutmix: float = _define_shape(0.0, "Shape of cutmix's Beta distribution; 0 disables cutmix.")
    probability: float = define_setting(
        1.0, "The share of batches that are mixed.", minimum=0, maximum=1
    )


@dataclass(frozen=True, slots=True)
class Warp:
    """A bilinear affine map about the centre; `border` fills the area outside the image."""

    probability: float = _define_probability(1.0)
    degrees: float = _define_amount(0.0, "Maximum rotation in either direction, in degrees.", 180)
    scale: tuple[float, ...] = _define_pair((1.0, 1.0), "Minimum and maximum scale factor.", 0, 10)
    shift: float = _define_amount(
        0.0, "Maximum translation along each axis, as a share of the side.", 1
    )
    shear: float = _define_amount(0.0, "Maximum shear along x, in degrees.", 60)
    border: Literal["mirror", "edge", "black"] = define_setting(
        "mirror", "Padding outside the image: its mirror image, its edge pixels, or black."
    )


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of the image, scaled to the size of the image (random resized crop)."""

    probability: float = _define_probability(1.0)
    area: tuple[float, ...] = _define_pair(
        (0.5, 1.0), "Minimum and maximum share of the image's area.", 0, 1
    )
    aspect: float = define_setting(
        1.0,
        "Maximum ratio of the part's aspect ratio to the image's, or of its inverse.",
        minimum=1,
        maximum=10,
    )


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the pixels: its maximum amount and its probability."""

    amount: float = field(
        metadata={"minimum": 0, "maximum": 255, "description": "The maximum amount."}
    )
    probability: float = _define_probability(1.0)


@dataclass(frozen=True, slots=True)
class Erase:
    """A rectangle that is filled with one colour (cutout, random erasing)."""

    probability: float = _define_probability(0.5)
    area: tuple[float, ...] = _define_pair(
        (0.02, 0.2), "Minimum and maximum share of the image's area.", 0, 1
    )
    aspect: float = define_setting(
        3.0, "Maximum ratio of the rectangle's aspect ratio to the image's, or of its inverse.",
        minimum=1, maximum=10,
    )  # fmt: skip
    fill: Literal["mean", "black"] = define_setting("mean", "The image's mean colour, or black.")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """All augmentations; omitted ones are not applied."""

    horizontal_flip: float = _define_share(0.0, "Share of images flipped left to right.")
    vertical_flip: float = _define_share(0.0, "Share of images flipped top to bottom.")
    quarter_turns: float = _define_share(
        0.0, "Share of images rotated by 0, 90, 180 or 270 degrees; if not square, by 0 or 180."
    )
    warp: Warp | None = define_setting(
        None, "Rotation, scale, translation and shear, as one affine map."
    )
    crop: Crop | None = define_setting(
        None, "Random resized crop, combined with `warp` into one map."
    )
    blur: Change | None = define_setting(
        None, "Gaussian blur; `amount` is sigma in pixels, at most 8."
    )
    brightness: Change | None = define_setting(
        None, "Multiply the pixels by 1 +- amount; amount at most 1."
    )
    contrast: Change | None = define_setting(
        None, "Multiply the distance from the image's mean grey by 1 +- amount; at most 1."
    )
    saturation: Change | None = define_setting(
        None, "Multiply the distance from the pixel's grey by 1 +- amount; at most 1."
    )
    hue: Change | None = define_setting(
        None, "Rotate about the grey axis by up to `amount` degrees."
    )
    grey: float = _define_share(0.0, "Share of images converted to grey.")
    gamma: Change | None = define_setting(
        None, "Raise the pixels to the power of (1 + amount) ** (-1 to 1)."
    )
    stain: Change | None = define_setting(
        None, "Multiply each channel's optical density by 1 +- amount; amount at most 1."
    )
    noise: Change | None = define_setting(
        None, "Gaussian noise; `amount` is its maximum deviation in pixel values of 0 to 255."
    )
    erase: Erase | None = define_setting(None, "A rectangle filled with one colour.")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All settings of a recipe, with their defaults."""

    tcc_recipe: int = field(
        metadata={"const": VERSION, "description": "The version of the recipe format, 1."}
    )
    doc: str = define_setting("", "What the recipe is for.")
    initial_weights: Literal["he"] | None = define_setting(
        None,
        "The initialization of a training without `--weights`. By default, it is PyTorch's. `he` "
        "preserves a signal's magnitude through ReLU. Use it for networks without batch norm, "
        "which hardly learn with PyTorch's initialization.",
    )
    epochs: int = define_setting(
        100,
        "The number of passes over the training images; `--epochs` overrides it.",
        minimum=1,
        maximum=MAX_EPOCHS,
    )
    batch: int = define_setting(
        64, "The number of images per step, over all processes.", minimum=1, maximum=MAX_BATCH
    )
    sampling: Literal["shuffled", "balanced"] = define_setting(
        "shuffled",
        "`shuffled` uses each image once per epoch. `balanced` uses as many images of each class: "
        "it repeats images of small classes and skips some of large classes.",
        default="shuffled",
    )
    last_batch: Literal["drop", "wrap"] = define_setting(
        "drop",
        "Handling of an incomplete last batch: drop it, or fill it with the epoch's first images. "
        "If there are fewer images than a batch, they are repeated.",
    )
    augment: Augmentation | None = define_setting(
        None, "Random augmentation of the training images."
    )
    mixup: Mixup | None = define_setting(None, "Mixing of the images and classes of a batch.")
    loss: Loss = define_setting(Loss(), "The loss to minimize.")
    optimizer: Optimizer = define_setting(Optimizer(), "The optimiser.")
    learning_rate: LearningRate = define_setting(
        LearningRate(), "The learning rate and its schedule."
    )
    clip_norm: float | None = define_setting(
        None, "The maximum norm of all gradients together.", exclusiveMinimum=0
    )
    average: float | None = define_setting(
        None,
        "The decay per step of the weights' moving average (EMA), which is evaluated and saved "
        "instead of the weights.",
        minimum=0,
        exclusiveMaximum=1,
    )
    precision: Literal["auto", "fp32", "bf16"] = define_setting(
        "auto",
        "The type of the layers' arithmetic, by PyTorch's autocast; weights, norms and losses stay "
        "float32. `auto` is bf16 if the processor has instructions for it, otherwise fp32.",
    )
    channels_last: bool = define_setting(True, "Whether to use the channels-last memory layout.")
    keep: Literal["last", "best", "balanced"] = define_setting(
        "last",
        "The weights to save: those of the last epoch, or of the best epoch on the validation "
        "images, by accuracy (`best`) or by balanced accuracy (`balanced`).",
    )
    range_rate: float | None = define_setting(
        None,
        "The peak learning rate of the activations' ranges with `--qat`, in doublings per step; 0 "
        "keeps the ranges of the calibration. By default, 0.1.",
        minimum=0,
        maximum=1,
    )


# All changes share one record, so the schema has only the largest of these limits.
MAX_AMOUNTS = {"blur": 8.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 180.0,
          "gamma": 4.0, "stain": 1.0, "noise": 128.0}  # fmt: skip
"""Maximum `amount` of each change."""
COLOR_CHANGES = ("saturation", "hue", "grey")


def check_augmentation(augmentation: Augmentation, network_input: Input, at: Span) -> None:
    """Check that the augmentations apply to a network's input; `at` is the network's location.

    Raises:
        UserError: The network takes no image, or it takes grey images and an augmentation needs
            colour (E1215).
    """
    if network_input.preprocess is None:
        help = "remove `augment` from the recipe"
        message = "this network does not take images, so they cannot be augmented"
        raise fail("E1215", message, at, help=help)
    color_changes = [name for name in COLOR_CHANGES if getattr(augmentation, name)]
    if color_changes and network_input.preprocess.color == "gray":
        message = f"`{color_changes[0]}` needs colour images, but this network takes grey images"
        raise fail("E1215", message, at, help="remove it from the recipe's `augment`")


def find_out_of_bounds(augmentation: Augmentation) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield the keys, message and help for each augmentation that is out of bounds."""
    for name, limit in MAX_AMOUNTS.items():
        change = getattr(augmentation, name)
        if change is not None and change.amount > limit:
            message = f"the `amount` of `augment: {name}` must be at most {limit:g}"
            yield (name, "amount"), message, f"lower `amount: {change.amount:g}` to {limit:g}"
    for keys, pair in _list_pairs(augmentation):
        if len(pair) != 2 or pair[0] > pair[1]:
            message = f"`augment: {': '.join(keys)}` must be two numbers, the smaller first"
            yield keys, message, ""


def _list_pairs(augmentation: Augmentation) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    pairs: list[tuple[tuple[str, ...], tuple[float, ...]]] = []
    if augmentation.warp:
        pairs.append((("warp", "scale"), augmentation.warp.scale))
    pairs += [((n, "area"), r.area) for n in ("crop", "erase") if (r := getattr(augmentation, n))]
    return pairs
