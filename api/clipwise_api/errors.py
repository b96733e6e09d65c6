"""From errors to HTTP: one table, one document (`application/problem+json`, RFC 9457)."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from clipwise import errors
from clipwise.jobs.spec import problems_in, problems_of
from clipwise.wire.jobs import PendingPlan
from clipwise.wire.listing import FieldProblem, ProblemDocument

log = logging.getLogger(__name__)

STATUS: dict[type[errors.ClipwiseError], int] = {
    errors.InvalidInput: 422,
    errors.TooLarge: 413,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.StaleToken: 409,
    errors.PlanPending: 202,
    errors.Unavailable: 503,
    errors.ConfigurationError: 500,
}
"""The nearest ancestor of an error in this table gives its status."""

FRAMEWORK_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_input",
}


def status_of(error: errors.ClipwiseError) -> int:
    """Return the HTTP status of a deliberate error."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor]
    return 500


def problem(
    request_id: str,
    status: int,
    code: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **members: Any,
) -> Response:
    """Return one problem document as a response."""
    document = ProblemDocument(
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        request_id=request_id,
        **members,
    )
    return JSONResponse(
        document.model_dump(mode="json", exclude_none=True),
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


def response_of(error: errors.ClipwiseError, request_id: str) -> Response:
    """Return the response of a deliberate error."""
    if isinstance(error, errors.PlanPending):
        pending = PendingPlan(detail=error.detail, retry_after=error.retry_after)
        return JSONResponse(
            pending.model_dump(mode="json"), status_code=202, headers={"Retry-After": str(error.retry_after)}
        )
    status = status_of(error)
    detail, headers, members = error.detail, {}, dict[str, Any]()
    if status >= 500:
        log.error("%s: %s", error.code, error.detail)
    if isinstance(error, errors.ConfigurationError):
        detail = f"the service is not set up correctly; its log says more under request {request_id}"
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="clipwise"'
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = "5"
    if isinstance(error, errors.InvalidInput) and error.problems:
        members["errors"] = [_field(p.pointer, p.detail, p.code) for p in error.problems]
    if isinstance(error, errors.IllegalTransition):
        members["allowed"] = list(error.allowed)
    if isinstance(error, errors.InvalidData):
        members.update(row=error.row, column=error.column)
    return problem(request_id, status, error.code, detail, headers=headers, **members)


def internal(request_id: str) -> Response:
    """Return the response to a fault of ours; the log has the rest."""
    detail = f"something went wrong inside Clipwise; its log says more under request {request_id}"
    return problem(request_id, 500, "internal", detail)


def unavailable(request_id: str) -> Response:
    """Return the response while the database is away."""
    error = errors.Unavailable("the database does not answer; try again in a few seconds")
    return response_of(error, request_id)


DATABASE_IS_AWAY = (OperationalError, InterfaceError, PoolTimeoutError)


def install(app: FastAPI) -> None:
    """Give `app` a problem document for every error that can leave a route."""

    async def clipwise_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.ClipwiseError)  # noqa: S101  # the handler is registered for it
        return response_of(error, request_id_of(request))

    async def invalid_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return _invalid(request_id_of(request), error.errors())

    async def framework_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return _framework(request, error)

    app.add_exception_handler(errors.ClipwiseError, clipwise_error)
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_exception_handler(HTTPException, framework_error)


def from_exception(error: Exception, request_id: str) -> Response:
    """Return the response for what no handler took: a fault of ours, or a database that is away."""
    if isinstance(error, errors.ClipwiseError):
        return response_of(error, request_id)
    if isinstance(error, DATABASE_IS_AWAY):
        log.warning("the database does not answer: %s", type(error.__cause__).__name__)
        return unavailable(request_id)
    if isinstance(error, ValidationError | ResponseValidationError):
        # Their messages repeat the values they were given, which can be those of rows.
        log.error("an answer did not fit its schema (%s)", type(error).__name__)
    else:
        log.error("the request failed", exc_info=error)
    return internal(request_id)


def invalid_document(error: ValidationError) -> errors.InvalidInput:
    """Turn pydantic's error about a document that a route parsed itself into ours."""
    problems = problems_of(error)
    return errors.InvalidInput("; ".join(f"{p.pointer or '/'}: {p.detail}" for p in problems[:3]), problems)


def request_id_of(request: Request) -> str:
    """Return the id that this request was given."""
    request_id: str = request.scope.get("state", {}).get("request_id", "")
    return request_id


def allowed_methods(app: FastAPI, path: str) -> set[str]:
    """Return the methods of every route at an address."""
    if path == "/openapi.json":  # it is in none of the routers
        return {"GET"}
    routers: tuple[APIRouter, ...] = app.state.routers
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    # An address that is written out belongs to its own routes, not to those with a placeholder there.
    found = [r for r in routes if r.path == path] or [r for r in routes if r.path_regex.match(path)]
    return {method for route in found for method in route.methods or ()}


def _field(pointer: str, detail: str, code: str) -> FieldProblem:
    return FieldProblem(pointer=pointer, detail=detail, code=code)


def _below_body(location: Sequence[Any]) -> tuple[Any, ...]:
    # The first part says where in the request; a body's pointer starts below it.
    return tuple(location[1:] if location and location[0] == "body" else location)


def _invalid(request_id: str, found: Sequence[Any]) -> Response:
    problems = problems_in([{**item, "loc": _below_body(item["loc"])} for item in found])
    fields = [_field(one.pointer, one.detail, one.code) for one in problems[:50]]
    detail = "; ".join(f"{field.pointer or '/'}: {field.detail}" for field in fields[:3])
    return problem(request_id, 422, "invalid_input", detail or "the request is not valid", errors=fields)


def _framework(request: Request, error: HTTPException) -> Response:
    code = FRAMEWORK_CODES.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
    detail = str(error.detail)
    if error.status_code == 304:
        return Response(status_code=304, headers=error.headers)
    if error.status_code == 404:
        detail = f"nothing is at {request.url.path}; the routes are in the OpenAPI document, /openapi.json"
    if error.status_code == 405:
        detail = f"{request.method} is not possible at {request.url.path}"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # Each route knows its own method only, and Allow is about the whole address.
        headers["Allow"] = ", ".join(sorted(allowed_methods(request.app, request.url.path)))
    members = {}
    pointer = getattr(error, "pointer", None)
    if pointer is not None:
        members["errors"] = [_field(pointer, detail, code)]
    return problem(request_id_of(request), error.status_code, code, detail, headers=headers, **members)
