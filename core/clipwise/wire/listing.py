"""The envelope of every list, and the error document."""

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, PlainSerializer

T = TypeVar("T")


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


UtcTime = Annotated[AwareDatetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]
"""A time on the wire: RFC 3339 in UTC, such as `2026-11-23T07:30:00.000Z`."""


class WireObject(BaseModel):
    """Base of what the api answers; unknown fields are ignored, so that old clients keep working."""

    model_config = ConfigDict(frozen=True)


class Page(WireObject, Generic[T]):
    """One page of a list; `next_cursor` is what `after` takes."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = False
    next_cursor: str | None = None


class FieldProblem(WireObject):
    """One invalid field of a request."""

    pointer: str
    detail: str
    code: str


class ProblemDocument(WireObject):
    """An error, as `application/problem+json` (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[FieldProblem] | None = None
    allowed: list[str] | None = None
    row: int | None = None
    column: str | None = None
