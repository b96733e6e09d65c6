"""Holds event streams open, in a process of its own: `python -m tests.benchmarks.streams URL JOB COUNT`.

The key comes on standard input, as does the end: when it closes, so do the streams.
"""

import selectors
import socket
import sys
import threading
from urllib.parse import urlsplit


def open_stream(url: str, key: str, job_id: str) -> socket.socket:
    """Open one event stream of a job."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    connection.sendall(
        f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {key}\r\n\r\n".encode()
    )
    if connection.recv(12) != b"HTTP/1.1 200":
        raise ConnectionError("the service did not open a stream")
    return connection


def main() -> None:
    """Open the streams, say so, and read from them until standard input ends."""
    url, job_id, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    key = sys.stdin.readline().strip()
    selector = selectors.DefaultSelector()
    for _ in range(count):
        selector.register(open_stream(url, key, job_id), selectors.EVENT_READ)
    print("open", flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.is_set() and selector.get_map():
        for found, _ in selector.select(0.2):
            assert isinstance(found.fileobj, socket.socket)
            if not found.fileobj.recv(65536):
                selector.unregister(found.fileobj)


if __name__ == "__main__":
    main()
