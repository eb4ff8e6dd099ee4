"""Many experiments under Ray Tune. The package can be called: `bgsweep.sweep(config)` is `bgsweep.api.sweep`."""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """This package as the function of the same name: importing any module of it would else hide that function."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        from bgsweep.api import sweep

        return sweep(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
