"""Functions compiled to machine code, which is kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)


def compile_ahead(function: Callable[..., None], *types: Any) -> Any:
    """Compile a function for these types of arguments and no others.

    It runs without the GIL and divides as numpy does. The machine code is kept in NUMBA_CACHE_DIR,
    in `__pycache__` beside the function's module, or in the user's cache folder: the first of them
    that can be used. Where none can, it is compiled anew in each process.
    """
    dispatcher: Any = njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError):  # numba found no folder
        dispatcher._cache = _Cache(function)
    dispatcher.compile(types)
    dispatcher.disable_compile()
    return dispatcher


class _Beside(InTreeCacheLocator):
    """The module's `__pycache__`. numba wants to write there; what lies there already, we read.

    So an image that brings its machine code along starts fast on a read-only file system.
    """

    def ensure_cache_path(self) -> None:
        if not any(Path(self._cache_path).glob("*.nbi")):
            super().ensure_cache_path()


class _Places(CompileResultCacheImpl):
    _locator_classes = [UserProvidedCacheLocator, _Beside, UserWideCacheLocator]  # noqa: RUF012


class _Cache(FunctionCache):
    """numba's cache, except that nothing depends on it.

    A damaged file is as good as none and is replaced; on a full disk nothing is kept.
    """

    _impl_class = _Places

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # unpickling a damaged file can raise anything
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)
