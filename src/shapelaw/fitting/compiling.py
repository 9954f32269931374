"""How kernels are compiled: cached on disk, without Python's checks, and no larger than their use needs.

numba keeps the machine code beside the source, or in the user's cache folder where that is read-only, and writes it aside
before renaming, so that processes may share it. It notices a change of a kernel's own file only: after editing a kernel
that others call, touch their files or clear the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
INNER: dict[str, Any] = OPTIONS | {"no_cpython_wrapper": True}
REORDERED: dict[str, Any] = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}}
"""Sums may be reordered (that lets them be vectorised); infinities and NaNs keep their meaning."""


def callable_kernel(function: Function) -> Function:
    """A kernel that Python calls."""
    return cast(Function, numba.njit(**OPTIONS)(function))


def inner(function: Function) -> Function:
    """A kernel for other kernels only: no Python wrapper, which doubles a small function's time to compile."""
    return cast(Function, numba.njit(**INNER)(function))


def reordered(function: Function) -> Function:
    """A kernel for other kernels whose sums may be reordered."""
    return cast(Function, numba.njit(**INNER, **REORDERED)(function))


def outer(function: Function) -> Function:
    """A kernel that Python calls, too, whose sums may be reordered."""
    return cast(Function, numba.njit(**OPTIONS, **REORDERED)(function))
