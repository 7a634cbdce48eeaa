"""numpy under its usual name, loaded when something of it is first asked for.

For modules that describe networks and are loaded by commands that compute no tensor, such as
`tcc check`, whose start it would slow down.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
else:

    class _Numpy:
        def __getattr__(self, name: str) -> Any:
            import numpy

            return getattr(numpy, name)

    np = _Numpy()

__all__ = ["np"]
