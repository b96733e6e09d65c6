"""What the client raises; a branch of the tree in `clipwise.errors`.

ClipwiseError
├── ApiError                      the service answered with an error: `status`, `code`, `problems`
│   ├── InvalidRequest            400, 413, 415, 422: what was sent cannot be used
│   ├── RequestUnauthenticated    401: no key, or one that is not known
│   ├── RequestForbidden          403: the key's role may not do this
│   ├── ResourceNotFound          404
│   ├── RequestConflict           409, 412: not now; `allowed` lists what is
│   ├── RateLimited               429, after all retries
│   └── ServiceFailed             5xx, after all retries
├── ServiceUnreachable            no answer at all, after all retries
├── UnexpectedAnswer              an answer that this version cannot read
├── DownloadFailed                what arrived is not what the service announced
└── WaitTimeout                   `wait` or `plan` ran out of time; the job goes on
"""

from typing import ClassVar, Final

from clipwise.errors import ClipwiseError, Problem
from clipwise.wire.listing import ProblemDocument


class ApiError(ClipwiseError):
    """The service answered with an error.

    Attributes:
        status: the HTTP status.
        code: the stable name of the error.
        problems: one for each invalid field, with a JSON pointer.
        allowed: the verbs that are allowed instead, where a job's status does not allow this one.
        row: first offending row of an upload, counted from 1, if known.
        column: offending column of an upload, if known.
        request_id: what the service's log calls this request.
    """

    def __init__(self, document: ProblemDocument) -> None:
        super().__init__(document.detail)
        self.document: Final = document
        self.status: Final = document.status
        self.code = document.code  # type: ignore[misc]  # the service's code, not the class's
        self.allowed: Final = tuple(document.allowed or ())
        self.row: Final = document.row
        self.column: Final = document.column
        self.request_id: Final = document.request_id
        self.problems: Final = tuple(
            Problem(pointer=problem.pointer, detail=problem.detail, code=problem.code)
            for problem in document.errors or ()
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(status={self.status}, code={self.code!r}, detail={self.detail!r})"


class InvalidRequest(ApiError):
    """What was sent cannot be used; `problems` names each field."""


class RequestUnauthenticated(ApiError):
    """No key was sent, or one that the service does not know."""


class RequestForbidden(ApiError):
    """The key's role may not do this."""


class ResourceNotFound(ApiError):
    """Nothing has this id or name."""


class RequestConflict(ApiError):
    """It cannot be done to this thing now."""


class RateLimited(ApiError):
    """Too many requests, also after every retry."""


class ServiceFailed(ApiError):
    """The service failed, also after every retry."""


class ServiceUnreachable(ClipwiseError):
    """Nothing answers at the service's address."""

    code: ClassVar[str] = "unreachable"


class UnexpectedAnswer(ClipwiseError):
    """The service's answer is not one that this version of the client can read."""

    code: ClassVar[str] = "unexpected_answer"


class DownloadFailed(ClipwiseError):
    """What arrived is not what the service announced; nothing was left behind."""

    code: ClassVar[str] = "download_failed"


class WaitTimeout(ClipwiseError):
    """It took longer than the given time; the service goes on with it."""

    code: ClassVar[str] = "wait_timeout"


BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: InvalidRequest,
    401: RequestUnauthenticated,
    403: RequestForbidden,
    404: ResourceNotFound,
    409: RequestConflict,
    412: RequestConflict,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
}


def error_of(document: ProblemDocument) -> ApiError:
    """Return the error that stands for an answer."""
    fallback = ServiceFailed if document.status >= 500 else ApiError
    return BY_STATUS.get(document.status, fallback)(document)
