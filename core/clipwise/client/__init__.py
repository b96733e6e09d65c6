"""The public Python client: typed, over HTTP like anyone's, with retries that cannot repeat a create."""

from clipwise.client.client import Client
from clipwise.client.errors import (
    ApiError,
    DownloadFailed,
    InvalidRequest,
    RateLimited,
    RequestConflict,
    RequestForbidden,
    RequestUnauthenticated,
    ResourceNotFound,
    ServiceFailed,
    ServiceUnreachable,
    UnexpectedAnswer,
    WaitTimeout,
)

__all__ = [
    "ApiError",
    "Client",
    "DownloadFailed",
    "InvalidRequest",
    "RateLimited",
    "RequestConflict",
    "RequestForbidden",
    "RequestUnauthenticated",
    "ResourceNotFound",
    "ServiceFailed",
    "ServiceUnreachable",
    "UnexpectedAnswer",
    "WaitTimeout",
]
