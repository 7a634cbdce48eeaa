"""The pytest plugin of `tcc.testing`: each check of a backend becomes one test.

    @pytest.mark.tcc_backend(OPENVINO)
    def test_openvino(tcc_check):
        tcc_check()

The marker takes the arguments of `tcc.testing.check_backend`. pytest loads this module in every run
of an environment with tcc. It is therefore not part of the package tcc, and imports it only when a
test asks for `tcc_check`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tcc.testing import Check

MARKER = "tcc_backend"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    line = f"{MARKER}(backend, *, ops=None, precisions=None): the backend that `tcc_check` checks"
    config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `tcc_check` once for each check of its backend."""
    if "tcc_check" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid} takes `tcc_check` but has no backend: mark it "
            f"with @pytest.mark.{MARKER}(BACKEND)"
        )
    from tcc.testing import list_checks

    checks = list_checks(*marker.args, **marker.kwargs)
    ids = [check.name for check in checks]
    metafunc.parametrize("tcc_check", checks, ids=ids, indirect=True)


@pytest.fixture
def tcc_check(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Return a function that runs one check; it skips the test if the check does not apply."""
    check: Check = request.param

    def run() -> Any:
        from tcc.testing import SkipCheck

        try:
            check()
        except SkipCheck as reason:
            pytest.skip(str(reason))

    return run
