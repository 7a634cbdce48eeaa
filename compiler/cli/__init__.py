"""The `tcc` command: one file a sub-command. Heavy libraries are imported when one runs."""

from tcc.compiler.cli.app import app, main

__all__ = ["app", "main"]
