"""What may be wrong with a PNG file."""


class PngError(ValueError):
    """The file is damaged: the message names the part."""


class AnimatedPngError(Exception):
    """The file has parts of an animation."""
