"""The optimizer's plug-ins: one frozen configuration per kind, its JSON and its update."""

from collections.abc import Mapping
from typing import Any

MODULES: Mapping[str, type[Any]] = {}
NOISE_KINDS = frozenset({"gaussian_noise"})
