"""Which jobs a list or a bulk change means, from the wire to the store."""

from collections.abc import Sequence

from clipwise.errors import InvalidInput, Problem
from clipwise.jobs.states import JobStatus
from clipwise.store.jobs import JobFilter
from clipwise_api.principals import Principal

ME = "me"
"""What stands for the caller's own key."""


def job_filter(
    who: Principal,
    place: str,
    *,
    ids: Sequence[str] | None = None,
    status: Sequence[JobStatus] | None = None,
    dataset: str | None = None,
    model: str | None = None,
    queue: str | None = None,
    parent: str | None = None,
    created_by: str | None = None,
    tag: Sequence[str] | None = None,
    q: str | None = None,
) -> JobFilter:
    """Return the filter of what a client asked for, at `place` in its request.

    Raises:
        InvalidInput: if a tag is none.
    """
    return JobFilter(
        ids=ids,
        statuses=status or (),
        dataset=dataset,
        model_kind=model,
        queue=queue,
        parent=parent,
        created_by=who.key_id if created_by == ME else created_by,
        tags=[_tag(text, f"{place}/tag") for text in tag or ()],
        search=q,
    )


def _tag(text: str, pointer: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon:
        detail = f"'{text}' is no tag; write key:value"
        raise InvalidInput(detail, (Problem(pointer=pointer, detail=detail),))
    return key, value
