"""Convolutions: the outer product of output gradients and patches, over positions.

A transposed convolution is the same with the parts of input and output gradient changed: its kernel moves
over the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional

from clipwise.clipping.contributions import Contribution, Dense, widened
from clipwise.clipping.rules.convolved import Convolved
from clipwise.clipping.rules.rule import Meeting, Rule, as_place
from clipwise.clipping.rules.windows import Window

if TYPE_CHECKING:
    from clipwise.clipping.capture import CaptureMode


def _forward(operation: Callable[..., Tensor], axes: int) -> Callable[..., Meeting | str]:
    def forward(
        capture: CaptureMode,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Meeting | str:
        kernel, dilation = tuple(weight.shape[2:]), _each(dilation, axes)
        spread = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        extra: tuple[int, ...] = ()
        if padding == "same":
            padding = tuple(s // 2 for s in spread)
            if any(s % 2 for s in spread):  # as torch does: one more pixel at the end
                extra = tuple(n for s in reversed(spread) for n in (0, s % 2))
        elif padding == "valid":
            padding = 0
        window = Window(
            kernel=kernel, stride=_each(stride, axes), padding=_each(padding, axes), dilation=dilation
        )

        def run(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return operation(images, weight, bias, window.stride, window.padding, window.dilation, groups)

        return _meeting(capture, (input, weight, bias), run, window, groups, extra=extra)

    return forward


def _transposed_forward(operation: Callable[..., Tensor], axes: int) -> Callable[..., Meeting | str]:
    def forward(
        capture: CaptureMode,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Meeting | str:
        window = Window(
            kernel=tuple(weight.shape[2:]),
            stride=_each(stride, axes),
            padding=_each(padding, axes),
            dilation=_each(dilation, axes),
        )

        def run(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return operation(
                images, weight, bias, window.stride, window.padding, output_padding, groups, window.dilation
            )

        return _meeting(capture, (input, weight, bias), run, window, groups, transposed=True)

    return forward


def _meeting(
    capture: CaptureMode,
    operands: tuple[Tensor, Tensor, Tensor | None],
    run: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    window: Window,
    groups: int,
    *,
    extra: tuple[int, ...] = (),
    transposed: bool = False,
) -> Meeting | str:
    """Run on rows (B, N, C, *pixels), or (B, C, *pixels) where the module was given no batch."""
    data, weight, bias = operands
    if not capture.is_data(data) or capture.is_data(weight) or capture.is_data(bias):
        return "its weight depends on the rows"
    x = capture.physical(data)
    folded = data.dim() == len(window.kernel) + 2
    images = x.flatten(0, 1) if folded else x
    trained = capture.is_weight(weight)
    with capture.whole_batch():
        if extra:
            images = functional.pad(images, extra)
        y = run(
            images,
            capture.detached(weight, x),
            None if bias is None else capture.detached(bias, x),
        )
        y = as_place(y, (*x.shape[:2], *y.shape[1:])) if folded else as_place(y)
    return Meeting(
        weights=tuple(one for one in (weight, bias) if one is not None and capture.is_weight(one)),
        saved=(images.detach() if trained else None, window, groups, transposed),
        places=(y,),
        outputs=y,
    )


def _each(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def contributions(
    weights: Sequence[Tensor], saved: Any, gradients: Sequence[Tensor | None], units: int
) -> list[Contribution | None]:
    """Return `sum_p g_p patch_p^T`, and `sum_p g_p` for the bias."""
    (x, window, groups, transposed), (g,) = saved, gradients
    if g is None:
        return [None] * len(weights)
    axes = len(window.kernel)
    g = g.reshape(-1, *g.shape[-axes - 1 :])
    found: list[Contribution | None] = []
    if x is not None:
        left, right = (x, g) if transposed else (g, x)
        found.append(Convolved(left, right, window, groups=groups, units=units))
    if len(weights) > len(found):
        summed = widened(g).flatten(2).sum(2)
        found.append(Dense(summed if len(summed) == units else summed.view(units, -1, g.shape[1]).sum(1)))
    return found


def _convolution(name: str, operation: Callable[..., Tensor], axes: int) -> Rule:
    return Rule(name=name, forward=_forward(operation, axes), contributions=contributions)


def _transposed(name: str, operation: Callable[..., Tensor], axes: int) -> Rule:
    return Rule(name=name, forward=_transposed_forward(operation, axes), contributions=contributions)


conv1d = _convolution("conv1d", functional.conv1d, 1)
conv2d = _convolution("conv2d", functional.conv2d, 2)
conv3d = _convolution("conv3d", functional.conv3d, 3)
conv_transpose1d = _transposed("conv_transpose1d", functional.conv_transpose1d, 1)
conv_transpose2d = _transposed("conv_transpose2d", functional.conv_transpose2d, 2)
conv_transpose3d = _transposed("conv_transpose3d", functional.conv_transpose3d, 3)
