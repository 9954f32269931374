"""The packages of the extra `train`, and the error if one of them is missing."""

from __future__ import annotations

import importlib.util

from shapelaw.errors import UserError

TRAIN = ("torch", "lightning", "mlflow", "submitit", "tokenizers", "safetensors")
"""Modules of the extra."""
REMEDY = "run: pip install 'shapelaw[train]'"


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def require(what: str, *modules: str, instead: str = "") -> None:
    """Refuse to start work whose modules are not installed.

    Args:
        what: the work that needs them, for the message.
        modules: modules of the extra.
        instead: an alternative that needs none of them.

    Raises:
        UserError: naming the first missing one and the command that installs it.
    """
    for module in modules:
        if not installed(module):
            raise UserError(f"{what} needs {module}, which is not installed; {REMEDY}{instead and f', or {instead}'}")


def explained(error: ModuleNotFoundError) -> str | None:
    """One line for an import that failed because the extra is missing; None if the module is not part of it.

    >>> explained(ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"))
    "torch is not installed; run: pip install 'shapelaw[train]'"
    """
    module = (error.name or "").partition(".")[0]
    return f"{module} is not installed; {REMEDY}" if module in TRAIN else None
