"""The catalogue of models: one torch-free, frozen configuration per kind."""

from collections.abc import Mapping
from typing import Any

from clipwise import plugins

ARCHITECTURES: Mapping[str, type[Any]] = {}


def kinds() -> Mapping[str, type[Any]]:
    """Return every kind that is installed here: ours, and those of other packages."""
    return {**plugins.installed(plugins.ARCHITECTURES_GROUP), **ARCHITECTURES}
