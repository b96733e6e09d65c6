"""What the OpenAPI document says about errors and downloads, in one place."""

from typing import Any

WHEN = {
    304: "Not changed since the version in If-None-Match.",
    400: "The body is not JSON, or the request is malformed.",
    401: "No key was sent, or one that is not known.",
    403: "The role of the key may not do this.",
    404: "Nothing has this id.",
    409: "It cannot be done to this thing now; `allowed` lists what can.",
    412: "If-Match names another version.",
    413: "The body is over its limit.",
    415: "The body has another content type than this takes.",
    422: "Something in the request is not valid; `errors` has a JSON pointer for each field.",
    503: "Something that the service needs is away.",
}

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """Return the documented errors of a route; `default` stands for those that every route has."""
    described: Responses = {status: _problem(WHEN[status]) for status in statuses}
    described["default"] = _problem("Another error.")
    return described


def _problem(description: str) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/ProblemDocument"}
    return {"description": description, "content": {"application/problem+json": {"schema": reference}}}


EVERY_ROUTE: Responses = problems(400, 401, 403, 422)
