"""Per-unit gradients of one weight, in the form in which they are cheapest to keep."""

from clipwise.clipping.contributions.blocks import Arranged, Blocks
from clipwise.clipping.contributions.combination import combined
from clipwise.clipping.contributions.contribution import Contribution, Norms, widened
from clipwise.clipping.contributions.dense import Dense
from clipwise.clipping.contributions.outer import Outer
from clipwise.clipping.contributions.sparse import Sparse

__all__ = ["Arranged", "Blocks", "Contribution", "Dense", "Norms", "Outer", "Sparse", "combined", "widened"]
