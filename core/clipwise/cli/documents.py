"""Documents that a command takes: a JSON or TOML file, or JSON on standard input."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from clipwise.cli.failures import WrongFile

LARGEST_BYTES = 16 * 2**20
JobFile = Annotated[
    str,
    typer.Argument(metavar="FILE", help="The job as JSON, or as TOML (*.toml); - is JSON on stdin."),
]


def read_document(name: str) -> dict[str, Any]:
    """Return the object in a file; `-` is JSON on standard input.

    Raises:
        WrongFile: if it cannot be read, with line and column where known.
    """
    text = _text(name)
    where = "standard input" if name == "-" else f"'{name}'"
    try:
        content = tomllib.loads(text) if name.lower().endswith(".toml") else parse_json(text)
    except json.JSONDecodeError as error:
        raise WrongFile(
            f"{where} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise WrongFile(f"{where} is not TOML: {error}") from error
    except (ValueError, RecursionError) as error:
        raise WrongFile(f"{where} cannot be used: {error}") from error
    if not isinstance(content, dict):
        raise WrongFile(f"{where} holds a {type(content).__name__}; it must be an object: {{...}}")
    return content


def parse_json(text: str) -> Any:
    """Read JSON strictly: finite numbers, and every field once.

    Raises:
        ValueError: if it is none.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number; use a finite one")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"'{twice}' is given twice; every field once")
        return found

    return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)


def _text(name: str) -> str:
    try:
        if name == "-":
            content = sys.stdin.buffer.read(LARGEST_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise WrongFile(
            f"cannot read '{name}': {error.strerror}; give the path of a JSON or TOML file"
        ) from error
    if len(content) > LARGEST_BYTES:
        raise WrongFile(f"'{name}' is larger than {LARGEST_BYTES // 2**20} MiB; it is no job")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongFile(f"'{name}' is not UTF-8 (byte {error.start}); save it as UTF-8") from error
