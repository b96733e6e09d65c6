"""Where a convolution's kernel lies on its image: strides, padding, dilation, patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Window:
    """The pixels that a kernel touches.

    Its element `k` at position `p` is on pixel `p * stride + k * dilation - padding`, along each axis.
    Every field has one number for each of the image's axes, in pixels.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def pointwise(self) -> bool:
        """Whether every position is one pixel."""
        return set(self.kernel) == {1} and set(self.padding) == {0}

    def span(self) -> tuple[int, ...]:
        """Return how many pixels the kernel reaches over, from its first to its last."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def fitted(self, image: Tensor, positions: Sequence[int]) -> tuple[Tensor, Window]:
        """Return an image (B, C, *pixels) and a window on it that give exactly `positions`.

        An output padding of a transposed convolution can leave pixels for one more.
        """
        pixels = image.shape[2:]
        given = [
            (n + 2 * p - reach) // s + 1
            for n, p, reach, s in zip(pixels, self.padding, self.span(), self.stride, strict=True)
        ]
        return (image, self) if given == list(positions) else self.padded(image, positions)

    def padded(self, image: Tensor, positions: Sequence[int]) -> tuple[Tensor, Window]:
        """Return the image with its padding, or cut to what `positions` touch, and the window on it."""
        around = [
            (p, size - n - p)
            for n, size, p in zip(image.shape[2:], self.frame(positions), self.padding, strict=True)
        ]
        if any(chain(*around)):
            image = functional.pad(image, tuple(chain(*reversed(around))))
        bare = Window(
            kernel=self.kernel, stride=self.stride, padding=(0,) * len(positions), dilation=self.dilation
        )
        return image, bare

    def frame(self, positions: Sequence[int]) -> tuple[int, ...]:
        """Return how many pixels, with the padding before, `positions` reach over."""
        return tuple(
            (count - 1) * s + reach
            for count, s, reach in zip(positions, self.stride, self.span(), strict=True)
        )

    def touched(self, axis: int, element: int, positions: int, pixels: int) -> tuple[slice, slice]:
        """Return the positions whose `element` of the kernel is inside of the image, and those pixels."""
        step = self.stride[axis]
        offset = element * self.dilation[axis] - self.padding[axis]
        first = max(0, -(offset // step))
        last = min(positions - 1, (pixels - 1 - offset) // step)
        if last < first:
            return slice(0, 0), slice(0, 0)
        return slice(first, last + 1), slice(first * step + offset, last * step + offset + 1, step)


def gathered_pairs(pairs: Tensor, window: Window, images: int, positions: Sequence[int]) -> Tensor:
    """Return `sum_k pairs[p's pixel k, q's pixel k]` for all pairs of positions.

    The sum over a kernel of several axes is done axis by axis: it costs the sum of the kernel's lengths,
    and not their product.

    Args:
        pairs: (G, images, *pixels, images, *pixels).
        window: the kernel's place.
        images: of a unit.
        positions: of an image, along each axis.

    Returns:
        (G, P, P), with P = images * all positions.
    """
    axes = len(positions)
    for axis, (count, length) in enumerate(zip(positions, window.kernel, strict=True)):
        left, right = 2 + axis, 3 + axes + axis
        pixels = pairs.shape[left]
        if (length, window.stride[axis], window.padding[axis], pixels) == (1, 1, 0, count):
            continue
        shape = list(pairs.shape)
        shape[left] = shape[right] = count
        found = pairs.new_zeros(shape)
        for element in range(length):
            near, seen = window.touched(axis, element, count, pixels)
            if near.stop == near.start:
                continue
            into, source = [slice(None)] * pairs.dim(), [slice(None)] * pairs.dim()
            into[left] = into[right] = near
            source[left] = source[right] = seen
            found[tuple(into)] += pairs[tuple(source)]
        pairs = found
    size = images * torch.Size(positions).numel()
    return pairs.reshape(pairs.shape[0], size, size)
