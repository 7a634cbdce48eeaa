"""The version of tcc, which artifacts name."""

__version__ = "0.1.0"
