"""Compile functions to machine code, and cache it on disk where possible."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import InTreeCacheLocator

_LOCATORS = f"UserProvidedCacheLocator,{__name__}.ReadableCacheLocator,UserWideCacheLocator"


def compile_ahead(function: Callable[..., None], *types: Any) -> Any:
    """Compile a function for these types of arguments and no others.

    It runs without the GIL and divides as numpy does. The machine code is kept in NUMBA_CACHE_DIR,
    in `__pycache__` beside the function's module, or in the user's cache folder: the first of them
    that can be used. Where none can, it is compiled again in each process.
    """
    try:
        with _locators():
            dispatcher = _compile(function, types, cache=True)
    except Exception:  # no folder, or a damaged file that cannot be replaced
        dispatcher = _compile(function, types, cache=False)
    dispatcher.disable_compile()
    return dispatcher


def is_cached(function: Callable[..., None]) -> bool:
    """Return whether a folder has machine code of the function's module; nothing is compiled."""
    try:
        with _locators():
            dispatcher: Any = njit(cache=True)(function)
        return find_cache(dispatcher) is not None
    except Exception:  # no folder can be used, or numba is switched off
        return False


def find_cache(dispatcher: Any) -> Path | None:
    """Return the folder that keeps the machine code of a compiled function; None without one."""
    folder: str | None = dispatcher.stats.cache_path
    return Path(folder) if folder and any(Path(folder).glob("*.nbi")) else None


def _compile(function: Callable[..., None], types: tuple[Any, ...], cache: bool) -> Any:
    dispatcher: Any = njit(nogil=True, error_model="numpy", cache=cache)(function)
    try:
        dispatcher.compile(types)
    except Exception:  # unpickling a damaged file can raise anything
        # With a signature it is compiled and was only not saved, as on a full disk.
        if not dispatcher.signatures:
            dispatcher.recompile()  # which clears the files, as nothing is compiled yet
            dispatcher.compile(types)
    return dispatcher


@contextmanager
def _locators() -> Iterator[None]:
    """Give numba our cache locators, unless NUMBA_CACHE_LOCATOR_CLASSES names others.

    They are reset at the end, so other users of numba in this process keep their own.
    """
    options: Any = config  # numba sets these names at import, unseen by mypy
    before = options.CACHE_LOCATOR_CLASSES
    options.CACHE_LOCATOR_CLASSES = before or _LOCATORS
    try:
        yield
    finally:
        options.CACHE_LOCATOR_CLASSES = before


class ReadableCacheLocator(InTreeCacheLocator):
    """The `__pycache__` of a module, even if it is read-only, when it has machine code in it.

    An image that contains its machine code thus starts fast on a read-only file system.
    """

    def ensure_cache_path(self) -> None:
        """Raise OSError if the folder has no machine code and cannot be written."""
        if not any(Path(self._cache_path).glob("*.nbi")):
            super().ensure_cache_path()
