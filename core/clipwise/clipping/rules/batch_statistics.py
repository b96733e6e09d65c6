"""Refusal of batch statistics that are asked for by a function, which no look at the modules finds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from torch import nn

from clipwise.errors import UnsupportedModule

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def batch_norm(
    capture: CaptureMode,
    input: Any,  # noqa: A002
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    *more: Any,
    **named: Any,
) -> Any:
    """Leave `functional.batch_norm` to others where it reads fixed statistics.

    Raises:
        UnsupportedModule: if it computes them from the batch.
    """
    del running_var, weight, bias, more, named
    if not capture.is_data(input) or not (training or running_mean is None):
        return NotImplemented
    path, name = _caller()
    raise UnsupportedModule(
        path,
        f"{name} calls batch_norm with training=True, which normalises over the batch, so a sample's "
        "gradient depends on the others; use group_norm or layer_norm, or statistics that are public",
    )


def _caller() -> tuple[str, str]:
    """Return path and type of the innermost module whose forward pass is running."""
    inner: nn.Module | None = None
    frame = sys._getframe(1)  # noqa: SLF001
    while frame.f_back is not None:
        own = frame.f_locals.get("self")
        if inner is None and isinstance(own, nn.Module):
            inner = own
        root = frame.f_locals.get("module")
        if frame.f_code.co_name == "capture" and isinstance(root, nn.Module):
            paths = {id(part): path for path, part in root.named_modules()}
            return paths.get(id(inner), ""), type(inner or root).__name__
        frame = frame.f_back
    return "", "the module"
