"""One request with everything around it: key, retries with back-off, errors turned into exceptions."""

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

import clipwise
from clipwise.client.errors import ServiceUnreachable, UnexpectedAnswer, error_of
from clipwise.client.location import Location
from clipwise.wire.listing import ProblemDocument

T = TypeVar("T")

RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
FIRST_DELAY_SECONDS: Final = 0.2
LONGEST_DELAY_SECONDS: Final = 30.0


def idempotency_key() -> str:
    """Return a new key under which a create may be repeated without happening twice."""
    return uuid.uuid4().hex


class Transport:
    """Sends requests to one service.

    A request is retried when the connection fails or the service answers 429, 502, 503 or 504, with
    exponential back-off, or after the answer's `Retry-After`. One that is not `repeatable` is retried
    only where it was certainly not carried out.
    """

    def __init__(self, location: Location, *, timeout: float, retries: int) -> None:
        self.location: Final = location
        self._retries = retries
        self._timeout = timeout
        headers = {"User-Agent": f"clipwise-python/{clipwise.__version__}", "Accept": "application/json"}
        if location.key is not None:
            headers["Authorization"] = f"Bearer {_header_safe(location.key)}"
        # A proxy named by the environment cannot reach this machine's loopback interface.
        self._http = httpx.Client(
            base_url=location.url, headers=headers, timeout=timeout, trust_env=not location.is_loopback
        )

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Mapping[str, Any]] | None = None,
        repeatable: bool = True,
        read_timeout: float | None = None,
    ) -> httpx.Response:
        """Send one request and give its answer, of any status below 400.

        Args:
            method: the HTTP method.
            path: below the service's address, starting with a slash.
            params: query; None values are left out.
            json: body as JSON.
            headers: further headers.
            body: makes httpx's arguments of the body anew for every try, where it is no JSON.
            repeatable: whether doing it twice is the same as doing it once.
            read_timeout: seconds to wait for the answer, where it is known to take long.

        Raises:
            ApiError: for a status of 400 or more, after all retries.
            ServiceUnreachable: without an answer, after all retries.
        """
        query = {name: value for name, value in (params or {}).items() if value is not None}
        timeout = httpx.Timeout(self._timeout, read=read_timeout or self._timeout)
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response = self._http.request(
                    method,
                    path,
                    params=query,
                    json=json,
                    headers=headers,
                    timeout=timeout,
                    **(body() if body else {}),
                )
            except httpx.TransportError as error:
                if last or not (repeatable or isinstance(error, NEVER_SENT)):
                    raise self.unreachable(error) from error
                time.sleep(backoff(attempt))
                continue
            if (
                response.status_code in RETRIED_STATUSES
                and not last
                and (repeatable or response.status_code in (429, 503))
            ):
                time.sleep(retry_after(response, default=backoff(attempt)))
                continue
            raise_for_error(response)
            return response
        raise AssertionError("unreachable: the last try returns or raises")

    @contextmanager
    def streaming(
        self, path: str, *, headers: Mapping[str, str] | None = None, read_timeout: float | None = None
    ) -> Iterator[httpx.Response]:
        """Open a GET whose body is read piece by piece; no retries.

        Raises:
            ApiError: for a status of 400 or more.
            httpx.TransportError: if the connection fails, also while reading.
        """
        timeout = httpx.Timeout(self._timeout, read=read_timeout or self._timeout)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                response.read()
                raise_for_error(response)
            yield response

    def unreachable(self, error: Exception) -> ServiceUnreachable:
        """Return the error that says that nothing answers."""
        what = str(error) or type(error).__name__
        return ServiceUnreachable(
            f"no answer from {self.location.url} ({what}): check that the service runs there "
            "('clipwise up' starts one here; CLIPWISE_URL names another)"
        )


def backoff(attempt: int) -> float:
    """Return seconds to wait after try number `attempt` (from 0): doubling, with jitter."""
    longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0**attempt)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # spreads clients, protects nothing


def retry_after(response: httpx.Response, *, default: float) -> float:
    """Return the seconds that an answer asks to wait, at most half a minute."""
    try:
        asked = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return default
    return min(max(asked, 0.0), LONGEST_DELAY_SECONDS)


def raise_for_error(response: httpx.Response) -> None:
    """Raise the `ApiError` that a status of 400 or more, or a redirect, stands for."""
    if response.is_success:
        return
    try:
        document = ProblemDocument.model_validate_json(response.content)
    except ValidationError:
        # Not ours: a proxy's page, or something else that listens there.
        phrase = response.reason_phrase or "an unknown status"
        document = ProblemDocument(
            title=phrase,
            status=response.status_code,
            code="unexpected_answer",
            detail=f"{response.request.url.copy_with(query=None)} answered {response.status_code} {phrase}",
            request_id=response.headers.get("X-Request-Id", ""),
        )
    raise error_of(document)


def read(kind: type[T], response: httpx.Response) -> T:
    """Read an answer as `kind`.

    Raises:
        UnexpectedAnswer: if it is none.
    """
    try:
        if issubclass(kind, BaseModel):
            return kind.model_validate_json(response.content)
        return TypeAdapter(kind).validate_json(response.content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        raise UnexpectedAnswer(
            f"{response.request.method} {response.request.url.path} gave an answer that Clipwise "
            f"{clipwise.__version__} cannot read ({where or 'the whole'}: {first['msg']}); "
            "install the version of the service"
        ) from error


def _header_safe(key: str) -> str:
    from clipwise.errors import ConfigurationError

    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            "CLIPWISE_API_KEY has a character that no key has (a space, a line's end or a letter outside of "
            "ASCII); copy it again"
        )
    return key
