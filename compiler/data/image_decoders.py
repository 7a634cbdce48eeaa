"""The processes that decode images; importing this loads no decoder."""

from tcc.compiler.support.confined_process import DecoderPool

MEMORY = 2 << 30
"""Bytes that a decoder may take: several times the pixels of the largest image, and its file."""
DECODERS = DecoderPool("tcc.compiler.data.image_decoder", MEMORY, "image")
