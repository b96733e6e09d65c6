"""Sortable, prefixed identifiers: `job_01j...`, a ULID in lower case behind the resource's name."""

from ulid import ULID


def new_id(prefix: str) -> str:
    """Return a new identifier such as `job_01k9...`; later ones sort after earlier ones."""
    return f"{prefix}_{str(ULID()).lower()}"
