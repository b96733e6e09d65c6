"""JSON bodies: their size, their syntax, and text that a database can hold."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

MAX_JSON_BYTES = 2**20
DEEPEST_JSON = 64


class InvalidBody(HTTPException):
    """A body that is refused before any field of it is looked at; `pointer` is where, if known."""

    def __init__(self, status: int, detail: str, pointer: str | None = None) -> None:
        super().__init__(status, detail)
        self.pointer = pointer


class JsonRequest(Request):
    """A request whose JSON is read strictly: limited, no NaN, no text that PostgreSQL refuses."""

    async def body(self) -> bytes:
        """Read the body.

        Raises:
            InvalidBody: 413 over the limit, 415 for another content type.
        """
        if not hasattr(self, "_body"):
            chunks, size = [], 0
            async for chunk in self.stream():
                size += len(chunk)
                if size > MAX_JSON_BYTES:
                    raise InvalidBody(413, f"the body is larger than {MAX_JSON_BYTES:,} bytes")
                chunks.append(chunk)
            self._body = b"".join(chunks)
            if self._body and not _is_json(self.headers.get("content-type", "")):
                raise InvalidBody(415, "send the body as Content-Type: application/json")
        return self._body

    async def json(self) -> Any:
        """Parse the body.

        Raises:
            InvalidBody: 400 if it is not JSON, 422 if a text in it cannot be stored.
        """
        try:
            document = json.loads(await self.body(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply, or has a number that is too long or not finite"
            if isinstance(error, json.JSONDecodeError):
                reason = f"{error.msg} (line {error.lineno}, column {error.colno})"
            raise InvalidBody(400, f"the body is not JSON: {reason}") from error
        require_storable(document)
        return document


class JsonRoute(APIRoute):
    """A route whose bodies are read by `JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the request put into its stricter form."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return handle_json


def require_storable(document: Any) -> None:
    """Check that a JSON document can be stored: its texts, and that it can be written as JSON again.

    Raises:
        InvalidBody: 422 with the place of a NUL character, a lone surrogate, or what is nested too deeply.
    """
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        pointer, value = waiting.pop()
        if pointer.count("/") > DEEPEST_JSON:
            raise InvalidBody(422, f"the body is nested more than {DEEPEST_JSON} levels deep", pointer)
        if isinstance(value, str) and not is_storable(value):
            raise InvalidBody(422, f"{pointer or '/'}: the text has a NUL or half a character", pointer)
        if isinstance(value, dict):
            for key, item in value.items():
                if not is_storable(key):
                    raise InvalidBody(422, f"{pointer or '/'}: a name has a NUL or half a character", pointer)
                waiting.append((f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}", item))
        elif isinstance(value, list):
            waiting.extend((f"{pointer}/{index}", item) for index, item in enumerate(value))


def is_storable(text: str) -> bool:
    """Return whether both databases can hold this text."""
    try:
        return b"\x00" not in text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
