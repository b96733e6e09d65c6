"""Server-sent events, read as they arrive (the event stream of the HTML standard, section 9.2)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a stream; `id` is the last one that was sent, as `Last-Event-ID` takes it."""

    event: str
    data: str
    id: str | None


def messages(chunks: Iterable[bytes]) -> Iterator[Message]:
    """Turn the bytes of a stream into its messages.

    A comment (a line that starts with a colon) only keeps the connection alive. What follows the last
    empty line when the stream ends is incomplete and dropped: it is sent again after a reconnect.
    """
    event, data, last_id = "message", list[str](), None
    for line in lines(chunks):
        if not line:
            if data:
                yield Message(event=event, data="\n".join(data), id=last_id)
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            last_id = value


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    r"""Split at `\n`, `\r` and `\r\n` alone; `str.splitlines` also splits at what JSON may hold."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        # A carriage return at the very end may be the first half of a pair.
        held = b"\r" if rest.endswith(b"\r") else b""
        *complete, rest = rest.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest += held
        for line in complete:
            yield line.decode("utf-8", errors="replace")
