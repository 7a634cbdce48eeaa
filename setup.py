"""Refuse to build a checkout without its links; all else is in pyproject.toml."""

import runpy

from setuptools import setup

runpy.run_path("src/tcc/source_links.py", run_name="__main__")
setup()
