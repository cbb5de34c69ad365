"""The one door to torch, which is optional."""

import sys
from typing import Any

from stoker.core.registry import missing_extra


def need_torch(what: str) -> Any:
    """Return the package torch. Raises MissingExtraError with the install command; `what` says who needs it."""
    try:
        import torch
    except ImportError as error:
        raise missing_extra(what, "torch", error) from error
    return torch


def loaded_torch() -> Any:
    """Return torch where the program has imported it, else None: then no value can be a tensor."""
    return sys.modules.get("torch")
