"""HTTP/1.1 as the load generator speaks it: kept connections, and as little work as possible."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


@final
class Connection(asyncio.Protocol):
    """One connection, with one request on its way at a time."""

    def __init__(self) -> None:
        self.is_open = True
        self._received = bytearray()
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer, and give the answer out once it is whole."""
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._received[:head_end]).lower()
        _, found, length = head.partition(b"content-length:")
        size = int(length.split(b"\r\n", 1)[0]) if found else 0
        whole = head_end + 4 + size
        if len(self._received) < whole:
            return
        answer = Answer(status=int(head[9:12]), body=bytes(self._received[head_end + 4 : whole]))
        del self._received[:whole]
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what is on its way."""
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for its answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()


@final
class Pool:
    """Connections to one server; the one that was used last is taken first."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).hostname
        self._port = urlsplit(url).port
        self._idle: list[Connection] = []

    async def open(self, count: int) -> None:
        """Open so many connections beforehand."""
        self._idle += [await self._connect() for _ in range(count)]

    async def ask(self, request: bytes) -> Answer:
        """Send a request over an idle connection, or over a new one."""
        connection = None
        while self._idle and (connection is None or not connection.is_open):
            connection = self._idle.pop()
        if connection is None or not connection.is_open:
            connection = await self._connect()
        answer = await connection.ask(request)
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            connection.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection


def request(
    method: str, target: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a request as it goes over the wire."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
