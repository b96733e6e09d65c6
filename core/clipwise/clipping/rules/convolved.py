"""Per-unit gradients of a convolution's kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from clipwise.clipping.contributions import (
    MOST_GRAM_POSITIONS,
    ROUNDING,
    Contribution,
    Dense,
    Norms,
    add_weighted,
    weighted_size,
    widened,
)
from clipwise.clipping.norms import row_norms
from clipwise.clipping.rules.windows import Window, gathered_pairs


@final
class Convolved(Contribution):
    """Sums over positions: `gradient[r, c, k] = sum_p left[r, p] right[c, pixel of (p, k)]`.

    Three ways to the norms, by `chosen_path`:

    - gradients instantiated by a product with patches (im2col), some units at a time, so that the patches
      stay in the processor's cache;
    - gradients instantiated by one convolution in which every image is a group of its own;
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
        self._path = chosen_path(
            self.shape, left.shape[2:], right.shape[2:], groups, left.shape[0] // units, self._left
        )
        self._dense: Tensor | None = None

    def norms(self) -> Norms:
        """Return the squared norms of the gradients."""
        if self._path == GRAM:
            return self._gram_norms()
        return Norms(squared=row_norms(self.instantiated().reshape(self.units, -1)).square())

    def instantiated(self) -> Tensor:
        """Return the gradients themselves, (G, *shape)."""
        if self._dense is None:
            self._dense = self._by_groups() if self._path == GROUPS else self._by_patches()
        return self._dense

    def weighted(self, factors: Tensor) -> Tensor | None:
        """Return the ordinary weight gradient of scaled rows, or one product of a vector and a matrix."""
        if self._dense is not None:
            return Dense(self._dense).weighted(factors)
        return self._summed(factors)

    def add_to(self, total: Tensor, factors: Tensor) -> None:
        """Add the weighted sum to `total`."""
        if self._dense is not None:
            add_weighted(total, self._dense, factors)
        else:
            total.add_(self._summed(factors))

    def kept_bytes(self) -> int:
        """Return the size of what was instantiated."""
        dense = self._dense
        return 0 if dense is None else dense.numel() * dense.element_size()

    def path(self) -> str:
        """Return how the norms are found."""
        return self._path

    def _summed(self, factors: Tensor) -> Tensor:
        images = factors.repeat_interleave(self._left.shape[0] // self.units)
        left = self._left * images.view(-1, *(1 for _ in self._left.shape[1:]))
        return weight_gradient(left, self._right, self.shape, self._window, self._groups)

    def _by_groups(self) -> Tensor:
        """Take every image for a group of channels: the sums over the batch fall away."""
        left, right = self._left, self._right
        images = left.shape[0]
        found = weight_gradient(
            left.reshape(1, -1, *left.shape[2:]),
            right.reshape(1, -1, *right.shape[2:]),
            (images * self.shape[0], *self.shape[1:]),
            self._window,
            images * self._groups,
        )
        found = found.view(self.units, -1, *self.shape)
        return found[:, 0] if images == self.units else found.sum(1)

    def _by_patches(self) -> Tensor:
        """Multiply with the patches of some units at a time."""
        found = self._left.new_empty(self.units * self._groups, self.shape[0] // self._groups, self._columns)
        for units, parts in self._slices():
            place = found[units.start * self._groups : units.stop * self._groups]
            for i, images in enumerate(parts):
                left = self._images(self._left)[units, images]
                right = self._images(self._right)[units, images]
                patches = self._window.patches(right.flatten(0, 1), left.shape[3:])
                patches = by_positions(patches, left.shape[0], self._groups, self._columns)
                left = by_positions(left.flatten(0, 1), left.shape[0], self._groups, place.shape[1])
                if i:
                    place.baddbmm_(left, patches.transpose(1, 2))
                else:
                    torch.bmm(left, patches.transpose(1, 2), out=place)
        return found.view(self.units, *self.shape)

    def _images(self, x: Tensor) -> Tensor:
        return x.reshape(self.units, -1, *x.shape[1:])

    @property
    def _columns(self) -> int:
        return self.shape[1:].numel()

    def _slices(self) -> Iterator[tuple[slice, list[slice]]]:
        """Yield units, and of them images, whose patches are about `PATCH_BYTES`."""
        positions = self._left.shape[2:].numel()
        one = self._columns * self._groups * positions * self._left.element_size()
        fitting = max(1, PATCH_BYTES // max(1, one))
        images = self._left.shape[0] // self.units
        units = max(1, fitting // images)
        parts = [slice(i, min(i + fitting, images)) for i in range(0, images, fitting)]
        for start in range(0, self.units, units):
            yield slice(start, min(start + units, self.units)), parts

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
        if pixels_are_cheaper(self.shape, positions.numel(), right.shape[3:].numel()):
            pairs = gram(right).view(-1, images, *right.shape[3:], images, *right.shape[3:])
            right_gram = gathered_pairs(pairs, self._window, images, positions)
        else:
            patches = self._window.patches(right.flatten(0, 1), positions)
            flat = by_positions(patches, right.shape[0], 1, self._columns)
            right_gram = torch.bmm(flat.transpose(1, 2), flat)
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


def by_positions(x: Tensor, units: int, groups: int, rows: int) -> Tensor:
    """Return (units * groups, rows, P) of (M, C, ...), the positions of a unit's images behind each other."""
    if x.shape[0] == units:
        return x.reshape(units * groups, rows, -1)
    return (
        x.reshape(units, -1, groups, rows, x[0].numel() // (groups * rows))
        .permute(0, 2, 3, 1, 4)
        .reshape(units * groups, rows, -1)
    )


def gram(x: Tensor) -> Tensor:
    """Return the products (G, P, P) of all pairs of positions of (G, images, R, *positions)."""
    flat = by_positions(x.flatten(0, 1), x.shape[0], 1, x.shape[2])
    return torch.bmm(flat.transpose(1, 2), flat)


SMALL, LARGE = 1e-8, 1e8
"""Between them float32 has room for products of four numbers."""


def levelled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `x` (G, ...) such that products of four elements neither overflow nor underflow.

    Returns:
        The elements, divided by sizes where any is very large or small, and the sizes (G,), in float64.
    """
    sizes = torch.linalg.vector_norm(x.flatten(1), ord=torch.inf, dim=1)
    if x.device.type == "cpu" and bool(((sizes == 0) | ((sizes >= SMALL) & (sizes <= LARGE))).all()):
        return x, torch.ones_like(sizes, dtype=torch.float64)
    sizes = torch.where((sizes > 0) & sizes.isfinite(), sizes, 1.0)
    return x / sizes.view(-1, *(1 for _ in x.shape[1:])), sizes.double()


PATCHES, GROUPS, GRAM = "instantiated from patches", "instantiated by groups", "gram"

PATCH_BYTES = 8 * 2**20
GRAM_BYTES = 2 * 2**20


def pixels_are_cheaper(shape: torch.Size, positions: int, pixels: int) -> bool:
    """Tell whether the patches' Gram matrix comes cheaper from that of the pixels."""
    kernel = shape[2:]
    return pixels**2 * (shape[1] + 8 * sum(kernel)) < positions**2 * shape[1:].numel()


def chosen_path(
    shape: torch.Size,
    positions: torch.Size,
    pixels: torch.Size,
    groups: int,
    images: int,
    like: Tensor,
) -> str:
    """Return the cheapest way to the norms."""
    count = positions.numel() * images
    weights = shape.numel()
    if groups == 1 and (like.dtype == torch.float64 or count <= MOST_GRAM_POSITIONS):
        seen = min(
            shape[1:].numel() * count**2, (shape[1] + 8 * sum(shape[2:])) * (pixels.numel() * images) ** 2
        )
        if 1.5 * (count**2 * (shape[0] + 20) + seen) < 60 * weights:
            return GRAM
    kernels = like.device.type == "cpu" and like.dtype == torch.float32 and groups == images == 1
    whole = shape[0] % 16 == shape[1] % 16 == 0
    if kernels and whole and positions.numel() >= 512 and weights <= 2**16:
        return GROUPS
    return PATCHES
