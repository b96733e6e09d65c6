"""What a convolution's kernel sees, written out as matrices (im2col)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Size, Tensor

from clipwise.clipping.rules.windows import Window


@final
class Patches:
    """Writes the patches of some images at a time to one place, which is used again and stays in cache.

    The elements of a patch come in one of two orders, whichever has more neighbours in memory: `(channel,
    *kernel)`, or with the channels `last`.

    Args:
        right: (M, C, *pixels), the images.
        window: of the kernel on them.
        positions: of the kernel, along each axis.
        groups: of channels.
        images: most that are written at a time.
    """

    def __init__(
        self, right: Tensor, window: Window, positions: Sequence[int], *, groups: int, images: int
    ) -> None:
        self._groups, self._positions, self._kernel = groups, Size(positions), Size(window.kernel)
        self._channels = right.shape[1] // groups
        self.last = self._channels_are_last(window)
        frame = window.frame(positions)
        sizes = [min(n, size - p) for n, size, p in zip(right.shape[2:], frame, window.padding, strict=True)]
        channels = right.shape[1]
        if self.last:
            self._image = right.new_zeros(images, *frame, channels)
            framed = self._image.movedim(-1, 1)
        else:
            self._image = framed = right.new_zeros(images, channels, *frame)
        self._source = (slice(None), slice(None), *(slice(0, max(0, size)) for size in sizes))
        inner = (slice(p, p + max(0, n)) for p, n in zip(window.padding, sizes, strict=True))
        self._inside = framed[(slice(None), slice(None), *inner)]
        image, channel, *axes = framed.stride()
        self._seen = framed.as_strided(
            (images, groups, self._channels, *self._kernel, *self._positions),
            (
                image,
                channel * self._channels,
                channel,
                *(d * step for d, step in zip(window.dilation, axes, strict=True)),
                *(s * step for s, step in zip(window.stride, axes, strict=True)),
            ),
        )
        self._buffer = right.new_empty(images * groups * self.columns * self._positions.numel())

    def _channels_are_last(self, window: Window) -> bool:
        if window.pointwise:
            return False
        together = window.kernel[-1] if window.dilation[-1] == 1 else 1
        return self._channels * together > (self._positions[-1] if window.stride[-1] == 1 else 1)

    @property
    def columns(self) -> int:
        """Elements of a patch, of one group of channels."""
        return self._channels * self._kernel.numel()

    def of(self, right: Tensor, units: int) -> Tensor:
        """Return the patches (units * groups, positions of a unit, columns); the next call overwrites them.

        Args:
            right: (m, C, *pixels), of no more images than were announced.
            units: that the images are of, in equal parts.
        """
        images = right.shape[0]
        self._inside[:images].copy_(right[self._source])
        axes = len(self._kernel)
        seen = self._seen[:images]
        seen = seen.view(units, images // units, *seen.shape[1:])
        kernel, positions = range(4, 4 + axes), range(4 + axes, 4 + 2 * axes)
        rows = images // units * self._positions.numel()
        if self.last:
            seen = seen.permute(0, 2, 1, *positions, *kernel, 3)
        else:
            seen = seen.permute(0, 2, 3, *kernel, 1, *positions)
        buffer = self._buffer[: seen.numel()]
        buffer.view(seen.shape).copy_(seen)
        if self.last:
            return buffer.view(units * self._groups, rows, self.columns)
        return buffer.view(units * self._groups, self.columns, rows).transpose(1, 2)


def arranged(gradients: Tensor, shape: Size, *, last: bool) -> Tensor:
    """Return gradients (G, R * columns), of patches with the channels `last` or not, as (G, *shape)."""
    if not last:
        return gradients.view(-1, *shape)
    return gradients.view(-1, shape[0], *shape[2:], shape[1]).movedim(-1, 2)
