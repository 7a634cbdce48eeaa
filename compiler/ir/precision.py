"""The names of precisions."""

INTEGER = ("int8", "int8-u8u8", "int8-qdq", "int8-u8")
"""Those at which a target is given the integer program, in the forms that it may be written in."""

FULL = "fp32"
"""That of the spec's own weights, which every target has."""
