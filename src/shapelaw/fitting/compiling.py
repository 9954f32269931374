"""How kernels are compiled: cached on disk, without Python's checks, and no larger than their use needs.

numba keeps the machine code beside the source, or in the user's cache folder where that is read-only, and writes it aside
before renaming, so that processes may share it. It notices a change of a kernel's own file only: after editing a kernel
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
"""Sums may be reordered (that lets them be vectorised); infinities and NaNs keep their meaning."""


class _MachineCode(FunctionCache):
    """numba's cache of a kernel, whose machine code is loaded without the compiler.

    numba itself fills the tables of its compiler before it looks into its cache: half a CPU-second of every process, for code
    that is compiled already. What is not in the cache is compiled as ever, and the compiler fills its tables then.
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
    """A kernel that Python calls, too, whose sums may be reordered."""
    return _compiled(function, OPTIONS | REORDERED)


def _compiled(function: Function, options: dict[str, Any]) -> Function:
    """A kernel that is cached, or compiled by every process where no folder takes a cache."""
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
