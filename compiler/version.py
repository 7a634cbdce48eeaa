"""The version of tcc, which artifacts record."""

__version__ = "0.1.0"
