"""Fixtures of page tests: ONNX Runtime for browsers, which npm downloads once."""

import pytest
from web_node import NODE

from tcc.backends.web.backend import RUNTIME_PACKAGE
from tcc.compiler.support.external_tools import MissingTool


@pytest.fixture(scope="session")
def runtime():
    """The files of ONNX Runtime. Skips without Node."""
    if not NODE:
        pytest.skip("needs Node.js: apt-get install nodejs")
    try:
        return RUNTIME_PACKAGE.load_files()
    except MissingTool as error:
        pytest.skip(f"{error} {error.reason}")
