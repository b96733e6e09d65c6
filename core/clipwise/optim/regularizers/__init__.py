"""Regularizers of the optimizer: none in this version, so a specification's list must be empty."""

from collections.abc import Mapping
from typing import Any

REGULARIZERS: Mapping[str, type[Any]] = {}
