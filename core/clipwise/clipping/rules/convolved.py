"""Per-unit gradients of a convolution's kernel."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from clipwise.clipping.contributions import Contribution, Norms, widened
from clipwise.clipping.contributions.gram import MOST_GRAM_POSITIONS, ROUNDING, weighted_size
from clipwise.clipping.contributions.outer import loses_digits
from clipwise.clipping.contributions.workspace import PART_BYTES, new_part, steps
from clipwise.clipping.norms import block_norms, norms_of, row_norms, takes_blocks
from clipwise.clipping.rules.patches import Patches, arranged
from clipwise.clipping.rules.windows import Window, gathered_pairs


@final
class Convolved(Contribution):
    """Sums over positions: `gradient[r, c, k] = sum_p left[r, p] right[c, pixel of (p, k)]`.

    Three ways to the norms, by `chosen_path`:

    - gradients instantiated by a product with patches (im2col), some units at a time, so that the patches
      stay in the processor's cache;
    - gradients instantiated by one convolution in which every image has groups of its own, for depthwise
      ones, whose products with patches would be small;
    - Gram matrices over positions, that of the patches summed from that of the pixels, which saves a factor
      of the kernel's size. The weighted sum is then the ordinary weight gradient, of `left` times factors.

    Args:
        left: (M, R, *positions), for a convolution its output gradients.
        right: (M, C, *pixels), for a convolution its images.
        window: of the kernel on `right`.
        groups: of channels.
        units: G, of M / G consecutive images.
    """

    def __init__(self, left: Tensor, right: Tensor, window: Window, *, groups: int, units: int) -> None:
        self._left = widened(left)
        self._right, self._window = window.fitted(widened(right), left.shape[2:])
        self._groups, self.units = groups, units
        self.shape = torch.Size((left.shape[1], right.shape[1] // groups, *window.kernel))
        images = left.shape[0] // units
        self._path = chosen_path(
            self.shape,
            images * left.shape[2:].numel(),
            images * right.shape[2:].numel(),
            groups,
            self._left.dtype,
        )
        self._parts: list[Tensor] = []
        self._blocks: list[Tensor] = []
        self._last = False

    def norms(self) -> Norms:
        """Return the squared norms of the gradients."""
        if self._path == GRAM:
            return self._gram_norms()
        self._instantiate()
        return Norms(squared=self._found_norms().square())

    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""
        self._instantiate()
        return arranged(torch.cat(self._parts), self.shape, last=self._last)

    def weighted(self, factors: Tensor) -> Tensor | None:
        """Return the ordinary weight gradient of scaled rows, or products of a vector and a matrix."""
        if not self._parts and loses_digits(self._left.reshape(self.units, -1), factors):
            self._instantiate()
        if not self._parts:
            return self._summed(factors)
        if factors.dtype != self._left.dtype:
            return None
        total, start = self._parts[0].new_zeros(1, self.shape.numel()), 0
        for part in self._parts:
            total.addmm_(factors[None, start : start + len(part)], part)
            start += len(part)
        return arranged(total, self.shape, last=self._last)[0].contiguous()

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum to `total`."""
        found = self.weighted(factors.to(self._left.dtype))
        if found is not None:
            total.add_(found)

    def kept_bytes(self) -> int:
        """Return the size of what was instantiated."""
        return sum(part.numel() * part.element_size() for part in self._parts)

    def path(self) -> str:
        """Return how the norms are found."""
        return self._path

    def _found_norms(self) -> Tensor:
        if self._blocks:
            return norms_of(self._parts, self._blocks)
        return torch.cat([row_norms(part) for part in self._parts])

    def _instantiate(self) -> None:
        if not self._parts:
            self._parts = self._by_groups() if self._path == GROUPS else self._by_patches()
            self._left, self._right = self._left.new_empty(0), self._right.new_empty(0)  # no longer needed

    def _summed(self, factors: Tensor) -> Tensor:
        images = factors.repeat_interleave(self._left.shape[0] // self.units)
        left = self._left * images.view(-1, *(1 for _ in self._left.shape[1:]))
        return weight_gradient(left, self._right, self.shape, self._window, self._groups)

    def _by_groups(self) -> list[Tensor]:
        """Take every image for groups of its own, so that nothing is summed over images."""
        left, right = self._left, self._right
        images = left.shape[0]
        found = weight_gradient(
            left.reshape(1, -1, *left.shape[2:]),
            right.reshape(1, -1, *right.shape[2:]),
            (images * self.shape[0], *self.shape[1:]),
            self._window,
            images * self._groups,
        ).view(self.units, images // self.units, -1)
        return [found[:, 0] if images == self.units else found.sum(1)]

    def _by_patches(self) -> list[Tensor]:
        """Multiply with the patches of some units at a time."""
        left, right = self._images(self._left), self._images(self._right)
        step, images = self._slice()
        patches = self._writer(step * images)
        self._last = patches.last
        columns, positions = left.shape[2] // self._groups, left.shape[3:].numel()
        parts = []
        for first, last in steps(self.units, self._units_of_part()):
            part = new_part(left, (last - first, self._groups * columns, self._columns))
            for start, stop in steps(last - first, step):
                place = part[start:stop].view(-1, columns, self._columns)
                units = slice(first + start, first + stop)
                for i, j in steps(left.shape[1], images):
                    seen = patches.of(right[units, i:j].flatten(0, 1), stop - start)
                    near = by_positions(left[units, i:j], self._groups, positions)
                    if i:
                        place.baddbmm_(near, seen)
                    else:
                        torch.bmm(near, seen, out=place)
                if takes_blocks(part):  # while they are in the cache
                    self._blocks.append(block_norms(part[start:stop].view(stop - start, -1)))
            parts.append(part.view(last - first, -1))
        return parts

    def _images(self, x: Tensor) -> Tensor:
        """Return (G, images, ...) of (M, ...)."""
        return x.reshape(self.units, -1, *x.shape[1:])

    def _writer(self, images: int) -> Patches:
        positions = self._left.shape[2:]
        return Patches(self._right, self._window, positions, groups=self._groups, images=images)

    @property
    def _columns(self) -> int:
        return self.shape[1:].numel()

    def _slice(self) -> tuple[int, int]:
        """Return how many units, and how many images of each, have patches of about `PATCH_BYTES`."""
        left = self._left
        one = self._columns * self._groups * left.shape[2:].numel() * left.element_size()
        fitting = max(1, PATCH_BYTES[left.device.type == "cpu"] // max(1, one))
        images = left.shape[0] // self.units
        return max(1, min(fitting // images, self.units)), min(fitting, images)

    def _units_of_part(self) -> int:
        if self._left.device.type != "cpu":
            return self.units
        return PART_BYTES // max(1, self.shape.numel() * self._left.element_size())

    def _gram_norms(self) -> Norms:
        size = (self._left.shape[0] // self.units) * self._left.shape[2:].numel()
        fitting = max(1, GRAM_BYTES // (size**2 * self._left.element_size()))
        parts = [
            self._gram_norms_of(slice(i, min(i + fitting, self.units))) for i in range(0, self.units, fitting)
        ]
        squared, spread, error = (torch.cat(one) for one in zip(*parts, strict=True))
        return Norms(squared=squared, spread=spread, error=error)

    def _gram_norms_of(self, units: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return squared norms, their spread and the sums' error, as `Norms` has them, of some units."""
        left, left_size = levelled(self._images(self._left)[units])
        right, right_size = levelled(self._images(self._right)[units])
        images, positions = left.shape[1], left.shape[3:]
        left_gram = gram(left)
        counts = images * positions.numel(), images * right.shape[3:].numel()
        if pixels_cost(self.shape, *counts) < patches_cost(self.shape, counts[0]):
            pairs = gram(right).view(-1, images, *right.shape[3:], images, *right.shape[3:])
            right_gram = gathered_pairs(pairs, self._window, images, positions)
        else:
            writer = self._writer(right.shape[0] * images)
            patches = writer.of(right.flatten(0, 1), right.shape[0])
            right_gram = torch.bmm(patches, patches.transpose(1, 2))
        left_norms = left_gram.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()
        right_norms = right_gram.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()
        unit = ROUNDING * torch.finfo(left.dtype).eps / 2
        spread = weighted_size(right_gram, left_norms) + weighted_size(left_gram, right_norms)
        squared = left_gram.mul_(right_gram).sum((1, 2), dtype=torch.float64).clamp(min=0.0)
        error = (left_norms * right_norms).sum(1, dtype=torch.float64)
        size = left_size * right_size
        return squared * size.square(), unit * spread * size.square(), unit * error * size


def weight_gradient(
    left: Tensor, right: Tensor, shape: tuple[int, ...], window: Window, groups: int
) -> Tensor:
    """Return the ordinary gradient of a kernel of `shape`, summed over images.

    Args:
        left: (M, R, *positions).
        right: (M, C, *pixels).
        shape: (R, C / groups, *kernel).
        window: of the kernel on `right`.
        groups: of channels.
    """
    weight = left.new_empty(1).expand(shape)
    found: Tensor = torch.ops.aten.convolution_backward(
        left,
        right,
        weight,
        None,
        window.stride,
        window.padding,
        window.dilation,
        False,
        [0] * len(window.kernel),
        groups,
        (False, True, False),
    )[1]
    return found


def by_positions(x: Tensor, groups: int, positions: int) -> Tensor:
    """Return (G * groups, C / groups, P) of (G, images, C, ...): a unit's images behind each other."""
    units, images, channels = x.shape[:3]
    if images == 1:
        return x.reshape(units * groups, channels // groups, positions)
    x = x.reshape(units, images, groups, channels // groups, positions)
    return x.permute(0, 2, 3, 1, 4).reshape(units * groups, channels // groups, images * positions)


def gram(x: Tensor) -> Tensor:
    """Return the products (G, P, P) of all pairs of positions of (G, images, R, *positions)."""
    flat = by_positions(x, 1, x.shape[3:].numel())
    return torch.bmm(flat.transpose(1, 2), flat)


SMALL, LARGE = 1e-8, 1e8
"""Between them float32 has room for products of four numbers."""


def levelled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `x` (G, ...) such that products of four elements neither overflow nor underflow.

    Returns:
        The elements, divided by sizes where any is very large or small, and the sizes (G,), in float64.
    """
    flat = x.flatten(1)
    sizes = torch.maximum(flat.amax(1), -flat.amin(1))  # the norm of order inf takes ten times as long
    looks = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if looks and bool(((sizes == 0) | ((sizes >= SMALL) & (sizes <= LARGE))).all()):
        return x, torch.ones_like(sizes, dtype=torch.float64)
    sizes = torch.where((sizes > 0) & sizes.isfinite(), sizes, 1.0)
    return x / sizes.view(-1, *(1 for _ in x.shape[1:])), sizes.double()


PATCHES, GROUPS, GRAM = "instantiated from patches", "instantiated by groups", "gram"

PATCH_BYTES = {True: 5 * 2**20, False: 256 * 2**20}
"""Patches that are written at a time, on a processor and on other devices. Measured on Sapphire Rapids with
2 threads: 2 to 8 MiB are equally fast, 40 MiB take 1.5 times as long."""
GRAM_BYTES = 2 * 2**20
"""One Gram matrix for some units at a time, so that what follows finds it in the processor's cache."""

# What one element costs, in multiplications of a matrix product. Measured on the layers of ResNet-18 on 32x32
# images and of two small networks, on Sapphire Rapids with 2 threads (150 multiplications in a nanosecond).
WEIGHT = 150
"""Of an instantiated gradient: written, read for its norm and for the weighted sum."""
COPY = 100
"""Of a patch that is written out."""
PAIR = 1000
"""Of a Gram matrix: its norms and error bounds, and the product."""
SHIFT = 100
"""Of a Gram matrix, for each element of the kernel along each axis, when it is summed from pixels."""
SCALE = 150
"""Of images and output gradients: their sizes before Gram matrices, their factors before the weighted sum."""


def pixels_cost(shape: torch.Size, positions: int, pixels: int) -> int:
    """Return what the patches' Gram matrix costs if it is summed from that of the pixels."""
    return shape[1] * pixels**2 + SHIFT * sum(shape[2:]) * positions**2


def patches_cost(shape: torch.Size, positions: int) -> int:
    """Return what the patches' Gram matrix costs if they are written out."""
    return shape[1:].numel() * (positions**2 + COPY * positions)


def chosen_path(shape: torch.Size, positions: int, pixels: int, groups: int, dtype: torch.dtype) -> str:
    """Return the cheaper way to the norms that is precise enough.

    Both ways have one product as large as that of the ordinary weight gradient: instantiated gradients for
    the gradients, Gram matrices for the weighted sum. It is left out here.

    Args:
        shape: of the weight, (R, C / groups, *kernel).
        positions: of all images of a unit.
        pixels: of all images of a unit.
        groups: of channels; Gram matrices are of one group.
        dtype: of the products.
    """
    if groups > 1 and shape[1] == 1 and dtype != torch.float64:  # which has no fast kernel
        return GROUPS
    if groups > 1 or (dtype != torch.float64 and positions > MOST_GRAM_POSITIONS):
        return PATCHES
    instantiated = WEIGHT * shape.numel() + COPY * shape[1:].numel() * positions
    grams = (
        (shape[0] + PAIR) * positions**2
        + SCALE * (shape[0] * positions + shape[1] * pixels)
        + min(pixels_cost(shape, positions, pixels), patches_cost(shape, positions))
    )
    return GRAM if grams < instantiated else PATCHES
