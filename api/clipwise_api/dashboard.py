"""The dashboard's built files, and its one page for every address that the browser may show."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

FOLDER = Path(__file__).parent / "dashboard"
MISSING = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Clipwise</title></head>
<body><h1>The dashboard is not built</h1>
<p>The api runs. To build its dashboard, run <code>make up</code> in the source checkout; an installed
package brings it along.</p></body></html>
"""
THE_APIS = frozenset({"v1", "metrics"})
"""First words of addresses that are never the dashboard's, so that nobody takes its page for an answer."""
IMMUTABLE = "public, max-age=31536000, immutable"


class Dashboard:
    """ASGI application for every address that is no route's."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give a built file, or the page itself for the addresses of its own router.

        Raises:
            HTTPException: 404 for anything else.
        """
        if scope["type"] != "http":
            await WebSocketClose()(scope, receive, send)
            return
        path = scope["path"].removeprefix("/")
        if scope["method"] not in {"GET", "HEAD"} or path.partition("/")[0] in THE_APIS:
            raise HTTPException(404)
        await self._response(path)(scope, receive, send)

    def _response(self, path: str) -> Response:
        found = built_file(self._folder, path)
        if found is not None:
            hashed = found.parent.name == "assets"
            return FileResponse(found, headers={"Cache-Control": IMMUTABLE if hashed else "no-cache"})
        if "." in path.rpartition("/")[2]:
            raise HTTPException(404)
        index = self._folder / "index.html"
        if not index.is_file():
            return HTMLResponse(MISSING, status_code=503)
        return FileResponse(index, headers={"Cache-Control": "no-cache"})


def built_file(folder: Path, path: str) -> Path | None:
    """Return the file at `path` inside `folder`, never one outside of it, never a hidden one."""
    if not path or "\\" in path or any(not part or part.startswith(".") for part in path.split("/")):
        return None
    found = (folder / path).resolve()
    return found if found.is_file() and found.is_relative_to(folder.resolve()) else None
