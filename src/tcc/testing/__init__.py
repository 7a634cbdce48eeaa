"""Tests that every target must pass, for use in the target's own repository.

    from tcc.testing import check_backend
    from tcc_openvino import OPENVINO

    def test_openvino():
        check_backend(OPENVINO)

With pytest, each check can be a separate test:

    @pytest.mark.tcc_backend(OPENVINO)
    def test_openvino(tcc_check):
        tcc_check()
"""

from tcc.testing.conformance import (
    Check,
    ConformanceError,
    Report,
    SkipCheck,
    check_backend,
    list_checks,
)

__all__ = ["Check", "ConformanceError", "Report", "SkipCheck", "check_backend", "list_checks"]
