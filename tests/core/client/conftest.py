"""A tiny real HTTP server that plays a script, to see how the client behaves over a bad line."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from clipwise.client import Client

HANG_UP = "hang up"
KEY = "cw_test_key_that_nobody_may_see"


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What the server says to one request; `body` is JSON unless it is bytes."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass
class Script:
    """Answers to give in turn; the last one again and again."""

    url: str = ""
    answers: list[Answer | str] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def play(self, *answers: Answer | str) -> None:
        self.answers = list(answers)
        self.seen.clear()

    def next(self) -> Answer | str:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def server() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            script.seen.append(Seen(self.command, self.path, dict(self.headers), body))
            answer = script.next()
            if isinstance(answer, str):
                self.close_connection = True
                self.connection.close()
                return
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) + (1000 if answer.cut else 0)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = answer.cut

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  # names of the base class

        def log_message(self, *args: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError, ValueError):
                super().handle()

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    script.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def client(server: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr("clipwise.client.transport.FIRST_DELAY_SECONDS", 0.01)
    with Client(server.url, api_key=KEY, timeout=5.0) as connected:
        yield connected


@pytest.fixture
def job_document() -> Callable[..., dict[str, Any]]:
    def make(status: str = "running", **changes: Any) -> dict[str, Any]:
        spec = {"dataset": "digits", "model": {"kind": "mlp"}, "training": {"steps": 3}}
        job: dict[str, Any] = {"id": "job_1", "object": "job", "name": None, "status": status}
        job |= dict.fromkeys(("phase", "status_reason", "progress", "plan", "privacy", "result"))
        job |= {"spec": spec, "dataset_id": "ds_1", "attempt": 0, "tags": {}}
        job |= {"created_at": "2026-01-01T00:00:00.000Z", "started_at": None, "finished_at": None}
        return job | changes

    return make


def problem(status: int, **members: Any) -> Answer:
    document = {
        "title": "t",
        "status": status,
        "code": "some_code",
        "detail": "what and how",
        "request_id": "r1",
    }
    return Answer(status, document | members, {"Content-Type": "application/problem+json"})
