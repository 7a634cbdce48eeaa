"""How a spec declares image inputs, and the error of a network that takes no images."""

from tcc.compiler.support.diagnostics import Span, UserError, fail

_COLORS = {1: "gray", 3: "rgb"}


def suggest_preprocess(shape: tuple[int, ...]) -> str | None:
    """Return a line for a spec that makes an input accept images; None if no image fits.

    Args:
        shape: The input's shape, such as channels, height and width.
    """
    color = _COLORS.get(shape[0]) if len(shape) == 3 else None
    if color is None:
        return None
    channels, height, width = shape
    mean, std = [0] * channels, [1] * channels
    resize = f"{{size: [{height}, {width}], mode: stretch}}"
    return f"preprocess: {{color: {color}, resize: {resize}, mean: {mean}, std: {std}}}"


def advise_preprocess(name: str, shape: tuple[int, ...]) -> str | None:
    """Return what to add to a spec, as a sentence; None if no image can become the input."""
    line = suggest_preprocess(shape)
    if line is None:
        return None
    return f"add `{line}` under `{name}` in the spec, with the `mean` and `std` of the training"


def build_image_error(name: str, shape: tuple[int, ...], at: Span) -> UserError:
    """Return the error of a network that gets images but takes none (E0625).

    Args:
        name: Its input's name.
        shape: Its input's shape.
        at: The span of the network, or of the images.
    """
    dims = "x".join(map(str, shape))
    tensors = f"give tensors of {dims} in an .npz file"
    advice = advise_preprocess(name, shape)
    help = f"{advice}, and build again; or {tensors}" if advice else tensors
    label = f"no `preprocess` defines how an image becomes its input `{name}`, {dims}"
    return fail("E0625", "this network does not take an image", at, label=label, help=help)
