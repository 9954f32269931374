"""How kernels are compiled: cached on disk, without Python's checks, and no larger than necessary.

numba keeps the machine code beside the source, or in the user's cache folder if the source is read-only. It writes the code
aside before renaming it, so processes may share it. It notices changes of a kernel's own file only: after editing a kernel
that others call, touch their files or clear the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache
from numba.core.runtime.nrt import rtsys

log = logging.getLogger(__name__)
Function = TypeVar("Function", bound=Callable[..., object])

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
INNER: dict[str, Any] = OPTIONS | {"no_cpython_wrapper": True}
REORDERED: dict[str, Any] = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}}
"""Sums may be reordered, which allows vectorisation; infinities and NaNs keep their meaning."""


class _MachineCode(FunctionCache):
    """numba's cache of a kernel, which loads machine code without the compiler.

    numba itself fills the tables of its compiler before it looks into its cache, which costs every process half a CPU-second
    even if the code is compiled already. A kernel outside the cache is compiled as usual, and the tables are filled then.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code for the types of arguments, or None."""
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]


def callable_kernel(function: Function) -> Function:
    """A kernel that Python calls."""
    return _compiled(function, OPTIONS)


def inner(function: Function) -> Function:
    """A kernel for other kernels only: no Python wrapper, which doubles a small function's time to compile."""
    return _compiled(function, INNER)


def reordered(function: Function) -> Function:
    """A kernel for other kernels whose sums may be reordered."""
    return _compiled(function, INNER | REORDERED)


def outer(function: Function) -> Function:
    """A kernel that Python calls as well, whose sums may be reordered."""
    return _compiled(function, OPTIONS | REORDERED)


def _compiled(function: Function, options: dict[str, Any]) -> Function:
    """A cached kernel; every process compiles it if no folder is writable for a cache."""
    kernel = numba.njit(**options)(function)
    try:
        kernel._cache = _MachineCode(function)  # type: ignore[no-untyped-call]  # as cache=True sets numba's own
    except RuntimeError:
        _say_uncached()
    return cast(Function, kernel)


@cache
def _say_uncached() -> None:
    log.warning(
        "the compiled solvers cannot be saved, because neither the package's folder nor the home folder is writable; "
        "every process compiles them again, in about 20 s: set NUMBA_CACHE_DIR to a writable folder"
    )
