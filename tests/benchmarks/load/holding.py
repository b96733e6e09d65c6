"""Holds event streams open and notes when events come: `python -m tests.benchmarks.load.holding`.

Reads a line of JSON from standard input (the server and the jobs), prints `open` once every stream has
answered, and after another line what came: for each job the seconds from its events' writing, which they
tell in `data.at`, to their arrival.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks.load import wire
from tests.benchmarks.load.stack import KEY, LOAD_CORE

OPENING_AT_ONCE = 8


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readline()


async def _follow(url: str, job_id: str, opening: asyncio.Semaphore, opened: Any, seen: list[float]) -> None:
    parts = urlsplit(url)
    headers = {"Authorization": f"Bearer {KEY}", "Accept": "text/event-stream"}
    async with opening:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(wire.request("GET", f"/v1/jobs/{job_id}/events", url, headers=headers))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"no stream was opened: {head!r}")
        opened.release()
    received = b""
    async for chunk in _chunks(reader):
        at = time.time()
        *frames, received = (received + chunk).split(b"\n\n")
        for frame in frames:
            lines = [line for line in frame.split(b"\n") if line.startswith(b"data: ")]
            told = [json.loads(line.removeprefix(b"data: ")) for line in lines]
            seen += [at - event["data"]["at"] for event in told if event.get("type") == "measured"]
    writer.close()


async def _hold() -> None:
    loop = asyncio.get_running_loop()
    given = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    seen: dict[str, list[float]] = {job_id: [] for job_id in given["jobs"]}
    opening, opened = asyncio.Semaphore(OPENING_AT_ONCE), asyncio.Semaphore(0)
    begun = time.monotonic()
    streams = [
        asyncio.create_task(_follow(given["url"], job_id, opening, opened, seen[job_id]))
        for job_id in given["jobs"]
    ]
    for _ in streams:
        await opened.acquire()
    print(json.dumps({"open": len(streams), "seconds": time.monotonic() - begun}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    closed = [stream for stream in streams if stream.done()]
    for stream in streams:
        stream.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*streams)
    print(json.dumps({"closed": len(closed), "seen": seen}), flush=True)


def main() -> None:
    """Hold the streams on the load's core."""
    os.sched_setaffinity(0, {LOAD_CORE})
    asyncio.run(_hold())


if __name__ == "__main__":
    main()
