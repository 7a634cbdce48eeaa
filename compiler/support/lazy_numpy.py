"""numpy under its usual name, imported when one of its attributes is first used.

For modules that describe networks and are imported by commands that compute no tensors, such as
`tcc check`: importing numpy would slow their start down.
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
