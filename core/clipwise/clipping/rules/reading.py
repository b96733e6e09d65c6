"""Reading a number out of a tensor of rows, as `if x.all():` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from clipwise.clipping.branches import RowsDisagree

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def reading(convert: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
    """Return the form of an operation that gives one Python number.

    All rows must have the same one. Rows with other integers or truth values are run apart; real numbers
    would part nearly every row from the others, and are refused.
    """

    def forward(capture: CaptureMode, input: Tensor, *others: Any) -> Any:  # noqa: A002
        if others or not capture.is_data(input) or input.numel() != 1:
            return NotImplemented
        values = capture.physical(input).detach().reshape(-1)
        values = values.bool() if convert is bool else values
        counted = values[capture.counted]
        counted = counted if counted.numel() else values[:1]
        if bool((counted == counted[0]).all()):
            found = counted[0].item()
            return found if convert is None else convert(found)
        if values.is_floating_point() or values.is_complex():
            raise RuntimeError("data-dependent control flow: the rows differ in a number read by .item()")
        raise RowsDisagree(values)

    return forward
