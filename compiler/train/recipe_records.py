"""What a recipe may say: its records, which the schema, the reader and docs are made from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tcc.compiler.ir.graph import Input
from tcc.compiler.support.diagnostics import Span, fail

VERSION = 1
MAX_EPOCHS, MAX_BATCH = 100_000, 65_536


def define_setting(default: Any, description: str, /, **rules: Any) -> Any:
    """Return the field of a key, with its default and rules of JSON Schema."""
    return field(default=default, metadata={**rules, "description": description})


def _define_share(default: float, text: str) -> Any:
    return define_setting(default, text, minimum=0, maximum=1)


def _define_probability(default: float) -> Any:
    return _define_share(default, "The share of images that it happens to.")


def _define_amount(default: Any, text: str, maximum: float) -> Any:
    return define_setting(default, text, minimum=0, maximum=maximum)


def _define_pair(default: tuple[float, float], text: str, minimum: float, maximum: float) -> Any:
    number = {"type": "number", "exclusiveMinimum": minimum, "maximum": maximum}
    return define_setting(default, text, items=number, minItems=2, maxItems=2)


def _define_shape(default: float, text: str) -> Any:
    return define_setting(default, text, minimum=0, maximum=100)


Schedule = Literal["constant", "cosine", "exponential", "steps"]
"""What the learning rate does after its warm-up."""


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The recipe's `learning_rate:`."""

    peak: float = define_setting(0.1, "The highest rate, after the warm-up.", exclusiveMinimum=0)
    schedule: Schedule = define_setting(
        "cosine",
        "`cosine` falls to `final` in half a wave, `exponential` by `decay` "
        "each epoch, `steps` by `decay` at each of `at_epochs`, `constant` stays.",
    )
    warmup_epochs: float = define_setting(
        0.0,
        "Epochs in which the rate rises from 0 in a line; of a run that is "
        "shorter than twice as many, half.",
        minimum=0,
    )
    final: float = define_setting(0.0, "The last share of `peak` (cosine).", minimum=0, maximum=1)
    decay: float = define_setting(
        0.1, "What the rate is multiplied by (exponential, steps).", exclusiveMinimum=0, maximum=1
    )
    at_epochs: tuple[int, ...] = define_setting(
        (), "The epochs, from 0, before which the rate falls (steps)."
    )


OptimizerKind = Literal["sgd", "adam", "adamw"]
"""Which optimiser."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The recipe's `optimizer:`."""

    kind: OptimizerKind = define_setting(
        "sgd", "`adam` adds the decay to the gradient, `adamw` takes it off the weights."
    )
    momentum: float = define_setting(0.9, "The momentum (sgd).", minimum=0, exclusiveMaximum=1)
    nesterov: bool = define_setting(True, "Whether it looks a step ahead (sgd).")
    beta1: float = define_setting(
        0.9, "The decay of the mean of gradients (adam, adamw).", minimum=0, exclusiveMaximum=1
    )
    beta2: float = define_setting(
        0.999,
        "The decay of the mean of their squares (adam, adamw).",
        minimum=0,
        exclusiveMaximum=1,
    )
    weight_decay: float = define_setting(
        0.0005,
        "The decay of tensors of two and more dimensions: of kernels and "
        "matrices, not of biases and batch norms.",
        minimum=0,
    )


LossKind = Literal["cross_entropy", "focal", "attention"]
"""Which loss."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The recipe's `loss:`."""

    kind: LossKind = define_setting("cross_entropy", "Which function of the logits.")
    label_smoothing: float = define_setting(
        0.0, "The share of each target that is spread over all classes.", minimum=0, maximum=0.9
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
        (), "The positive classes; of two classes, the second by default."
    )
    balanced: bool = define_setting(
        False, "Weigh classes so that each counts as much as any other."
    )
    class_weights: Mapping[str, float] = field(
        default_factory=dict,
        metadata={
            "description": "Weights by the classes' names; others have 1. What counts is their "
            "ratio: they are scaled so that the mean over the training images is 1."
        },
    )
    auxiliary: Mapping[str, float] = field(
        default_factory=dict,
        metadata={
            "description": "Shares of the losses of train-only outputs, by name; 0.3 by default."
        },
    )


@dataclass(frozen=True, slots=True)
class Mixup:
    """How batches are mixed; where both numbers are above 0, each batch is mixed in one way."""

    alpha: float = _define_shape(0.2, "Shape of mixup's Beta distribution; 0: none.")
    cutmix: float = _define_shape(0.0, "Shape of cutmix's Beta distribution; 0: none.")
    probability: float = define_setting(1.0, "The share of batches.", minimum=0, maximum=1)


@dataclass(frozen=True, slots=True)
class Warp:
    """One affine map about the centre, bilinear; `border` is what comes in from outside."""

    probability: float = _define_probability(1.0)
    degrees: float = _define_amount(0.0, "Rotation, to either side.", 180)
    scale: tuple[float, ...] = _define_pair(
        (1.0, 1.0), "How many times as large, least and most.", 0, 10
    )
    shift: float = _define_amount(0.0, "Translation along each axis, as a share of the side.", 1)
    shear: float = _define_amount(0.0, "Shear along x, in degrees.", 60)
    border: Literal["mirror", "edge", "black"] = define_setting(
        "mirror", "What lies beyond the image's edges."
    )


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of the image, scaled to all of it (random resized crop)."""

    probability: float = _define_probability(1.0)
    area: tuple[float, ...] = _define_pair((0.5, 1.0), "Share of the area, least and most.", 0, 1)
    aspect: float = define_setting(
        1.0,
        "Most times that the part is wider, or higher, than the image's shape.",
        minimum=1,
        maximum=10,
    )


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the pixels: how much at most, and how often."""

    amount: float = field(
        metadata={"minimum": 0, "maximum": 255, "description": "The most that is drawn."}
    )
    probability: float = _define_probability(1.0)


@dataclass(frozen=True, slots=True)
class Erase:
    """A rectangle that is painted over (cutout, random erasing)."""

    probability: float = _define_probability(0.5)
    area: tuple[float, ...] = _define_pair((0.02, 0.2), "Share of the area, least and most.", 0, 1)
    aspect: float = define_setting(3.0, "Most times wider, or higher.", minimum=1, maximum=10)
    fill: Literal["mean", "black"] = define_setting("mean", "The image's mean colour, or black.")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """All changes; what a recipe leaves out does not happen."""

    horizontal_flip: float = _define_share(0.0, "Share mirrored left to right.")
    vertical_flip: float = _define_share(0.0, "Share mirrored top to bottom.")
    quarter_turns: float = _define_share(
        0.0, "Share turned by 0, 90, 180 or 270 degrees; if not square, by 0 or 180."
    )
    warp: Warp | None = define_setting(
        None, "Rotation, scale, translation and shear, as one affine map."
    )
    crop: Crop | None = define_setting(None, "A part, scaled to the whole; one map with `warp`.")
    blur: Change | None = define_setting(
        None, "Gaussian blur; `amount` is sigma in pixels, at most 8."
    )
    brightness: Change | None = define_setting(None, "Levels times 1 +- amount, at most 1.")
    contrast: Change | None = define_setting(
        None, "Distance from the image's mean grey times 1 +- amount."
    )
    saturation: Change | None = define_setting(
        None, "Distance from the pixel's grey times 1 +- amount."
    )
    hue: Change | None = define_setting(None, "Turn about the grey axis by up to `amount` degrees.")
    grey: float = _define_share(0.0, "Share that loses its colour.")
    gamma: Change | None = define_setting(None, "Levels to the power of (1 + amount) ** (-1 to 1).")
    stain: Change | None = define_setting(
        None, "Optical density of each channel times 1 +- amount, at most 1."
    )
    noise: Change | None = define_setting(
        None, "Gaussian noise; `amount` is its deviation in levels."
    )
    erase: Erase | None = define_setting(None, "A rectangle painted over.")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a recipe says; what it leaves out has the defaults that stand here."""

    tcc_recipe: int = field(
        metadata={"const": VERSION, "description": "The version of this language, 1."}
    )
    doc: str = define_setting("", "What the recipe is for.")
    initial_weights: Literal["he"] | None = define_setting(
        None,
        "What a training without `--weights` begins with. `he` keeps a signal's "
        "size through ReLU: for networks without batch norm, which hardly learn with what "
        "PyTorch's layers begin with, and what is taken where this is left out.",
    )
    epochs: int = define_setting(
        100,
        "How often each training image is seen; `--epochs` goes before it.",
        minimum=1,
        maximum=MAX_EPOCHS,
    )
    batch: int = define_setting(
        64, "Images of a step, over all processes together.", minimum=1, maximum=MAX_BATCH
    )
    sampling: Literal["shuffled", "balanced"] = define_setting(
        "shuffled",
        "Whether an epoch has each image once, or as many images of each class: "
        "those of small classes then come several times, of large ones some not at all.",
        default="shuffled",
    )
    last_batch: Literal["drop", "wrap"] = define_setting(
        "drop",
        "What becomes of the images that fill no batch: an epoch leaves them "
        "out, or fills up with its first ones. Where all fill none, they are repeated.",
    )
    augment: Augmentation | None = define_setting(
        None, "How training images are changed, each time another way."
    )
    mixup: Mixup | None = define_setting(
        None, "How images of a batch are blended, with their classes."
    )
    loss: Loss = define_setting(Loss(), "What is made small.")
    optimizer: Optimizer = define_setting(Optimizer(), "How the weights follow the gradients.")
    learning_rate: LearningRate = define_setting(LearningRate(), "How far they go in a step.")
    clip_norm: float | None = define_setting(
        None, "The largest norm of all gradients together.", exclusiveMinimum=0
    )
    average: float | None = define_setting(
        None,
        "The decay in a step of the weights' moving average (EMA), which is "
        "judged and kept in their place.",
        minimum=0,
        exclusiveMaximum=1,
    )
    precision: Literal["auto", "fp32", "bf16"] = define_setting(
        "auto",
        "The type of the layers' arithmetic where PyTorch's autocast has it; "
        "weights, norms and losses stay float32. `auto` is bf16 where the processor "
        "multiplies it, else fp32.",
    )
    channels_last: bool = define_setting(True, "Whether channels lie innermost in memory.")
    keep: Literal["last", "best"] = define_setting(
        "last",
        "Which weights are kept: the last, or those of the epoch that did best "
        "on the validation images.",
    )


# All changes share one record, whose schema can only hold the largest of these.
MAX_AMOUNTS = {"blur": 8.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 180.0,
          "gamma": 4.0, "stain": 1.0, "noise": 128.0}  # fmt: skip
"""The most that `amount` may be, by the change's name."""
COLOR_CHANGES = ("saturation", "hue", "grey")


def check_augmentation(augmentation: Augmentation, source: Input, at: Span) -> None:
    """Refuse changes that a network's input cannot have; `at` is the network's place.

    Raises:
        UserError: It takes no image, or a grey one that cannot change its colour (E1215).
    """
    if source.preprocess is None:
        help = "leave `augment` out of the recipe"
        raise fail("E1215", "only images can be augmented; this network takes none", at, help=help)
    color_changes = [name for name in COLOR_CHANGES if getattr(augmentation, name)]
    if color_changes and source.preprocess.color == "gray":
        message = f"this network takes grey images, which have no `{color_changes[0]}`"
        raise fail("E1215", message, at, help="leave it out of the recipe's `augment`")


def find_out_of_bounds(augmentation: Augmentation) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield the keys of what no network can have, what is wrong with it, and what would help."""
    for name, limit in MAX_AMOUNTS.items():
        change = getattr(augmentation, name)
        if change is not None and change.amount > limit:
            message = f"`augment: {name}` changes at most by {limit:g}"
            yield (name, "amount"), message, f"`amount: {change.amount:g}` is more"
    for keys, pair in _list_pairs(augmentation):
        if len(pair) != 2 or pair[0] > pair[1]:
            message = f"`augment: {': '.join(keys)}` takes two numbers, the smaller first"
            yield keys, message, ""


def _list_pairs(augmentation: Augmentation) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    pairs: list[tuple[tuple[str, ...], tuple[float, ...]]] = []
    if augmentation.warp:
        pairs.append((("warp", "scale"), augmentation.warp.scale))
    pairs += [((n, "area"), r.area) for n in ("crop", "erase") if (r := getattr(augmentation, n))]
    return pairs
