"""The `tcc` command, one file per subcommand. Heavy libraries are imported only when one runs."""

from tcc.compiler.cli.app import app, main

__all__ = ["app", "main"]
