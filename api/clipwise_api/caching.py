"""ETags: what a client has seen, and what it means to change."""

import hashlib
import json

from fastapi.exceptions import HTTPException

from clipwise.errors import PreconditionFailed
from clipwise.wire.listing import WireObject


def etag(thing: WireObject) -> str:
    """Return the strong ETag of an object as this caller sees it."""
    # A database may keep the members of a document in another order than they came in.
    document = json.dumps(thing.model_dump(mode="json", by_alias=True), sort_keys=True)
    return f'"{hashlib.sha256(document.encode()).hexdigest()[:32]}"'


def not_modified(thing: WireObject, if_none_match: str | None) -> None:
    """Answer 304 if the client has this version already.

    Raises:
        HTTPException: 304, with the ETag.
    """
    if if_none_match is not None and names(if_none_match, etag(thing)):
        raise HTTPException(304, headers={"ETag": etag(thing)})


def require_match(current: WireObject, if_match: str | None) -> None:
    """Check that the client means the current version; without If-Match it means any.

    Raises:
        PreconditionFailed: if the object has changed since.
    """
    if if_match is None or if_match.strip() == "*":
        return
    now = etag(current)
    if not names(if_match, now):
        raise PreconditionFailed(
            f"If-Match names {if_match}, but the current version is {now}; read it again, then decide"
        )


def names(header: str, tag: str) -> bool:
    """Return whether a list of ETags from a header has `tag` in it."""
    given = {part.strip().removeprefix("W/") for part in header.split(",")}
    return "*" in given or tag in given
