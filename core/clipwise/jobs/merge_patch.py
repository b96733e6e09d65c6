"""JSON merge patches (RFC 7396): a document that says what another one should have instead."""

from collections.abc import Mapping
from typing import Any


def merged(target: Any, patch: Any) -> Any:
    """Return `target` as `patch` wants it: null removes a field, objects are merged, the rest is replaced.

    Neither of the two is changed.

    >>> merged({"training": {"steps": 10, "seed": 7}}, {"training": {"steps": None, "epochs": 2}})
    {'training': {'seed': 7, 'epochs': 2}}
    """
    if not isinstance(patch, Mapping):
        return patch
    found = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found
