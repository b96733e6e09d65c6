"""What goes to stdout: JSON for machines, tables for people."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH_OF_PIPES = 180


def say(text: str = "", *, error: bool = False) -> None:
    """Print a line as it is, so that no link in it is broken."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def print_json(value: Any) -> None:
    """Print one document: a wire object, a list of them, or plain data."""
    print(json.dumps(plain_data(value), indent=2, ensure_ascii=False, allow_nan=False), flush=True)


def print_json_line(value: Any) -> None:
    """Print one document on one line, for output that goes on."""
    print(json.dumps(plain_data(value), ensure_ascii=False, allow_nan=False), flush=True)


def plain_data(value: Any) -> Any:
    """Return wire objects as they are on the wire."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, dict):
        return {key: plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(item) for item in value]
    return value


def moment(when: datetime | None) -> str | None:
    """Return a moment on this machine's clock, to the second."""
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S}" if when is not None else None


def printable(text: str) -> str:
    """Return `text` without what would move a terminal's cursor or change its colours."""
    return "".join(
        char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def console() -> "Console":
    """Return the console of stdout; into a pipe it is wide and has no colours."""
    from rich.console import Console

    return Console(highlight=False) if is_terminal() else Console(highlight=False, width=WIDTH_OF_PIPES)


def show(what: "RenderableType") -> None:
    """Print something that Rich renders."""
    console().print(what)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table, or `empty` where it has no rows; None is shown as a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        say(empty)
        return
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for position, column in enumerate(columns):
        drawn.add_column(column, no_wrap=position == 0, overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    show(drawn)


def facts(pairs: Iterable[tuple[str, object]], *, title: str | None = None) -> None:
    """Print names and values below each other; those without a value are left out."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(style="dim", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            drawn.add_row(name, Text(_cell(value)))
    if title:
        show(Text(printable(title), style="bold"))
    show(drawn)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(str(value))
