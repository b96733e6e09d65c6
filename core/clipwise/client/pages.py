"""Lists that come in pages, read as one iterator."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from clipwise.client.transport import Transport, read
from clipwise.wire.listing import Page, WireObject

T = TypeVar("T", bound=WireObject)

LARGEST_PAGE = 100


def items(
    transport: Transport,
    path: str,
    kind: type[T],
    params: Mapping[str, Any],
    *,
    limit: int | None = None,
    start: str | None = None,
) -> Iterator[T]:
    """Yield the items of a list, a page at a time, as far as they are asked for.

    Args:
        transport: where to ask.
        path: the list's path.
        kind: class of its items.
        params: filters and sort.
        limit: largest number of items; all without.
        start: cursor of the item before the first one.
    """
    size = LARGEST_PAGE if limit is None else max(1, min(limit, LARGEST_PAGE))
    return islice(_all(transport, path, kind, {**params, "limit": size}, start), limit)


def whole(transport: Transport, path: str, kind: type[T]) -> list[T]:
    """Return the items of a list that has a single page."""
    page: Page[T] = read(Page[kind], transport.request("GET", path))  # type: ignore[valid-type]
    return page.data


def _all(
    transport: Transport, path: str, kind: type[T], params: Mapping[str, Any], cursor: str | None
) -> Iterator[T]:
    while True:
        query = {**params, "after": cursor}
        page: Page[T] = read(Page[kind], transport.request("GET", path, params=query))  # type: ignore[valid-type]
        yield from page.data
        if not page.has_more or page.next_cursor is None:
            return
        cursor = page.next_cursor
