"""The multipart form of an upload, streamed from disk and made anew for every try."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clipwise.errors import InvalidData

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".npz")


def form_of(path: Path, *, name: str | None, **fields: Any) -> Callable[[], Mapping[str, Any]]:
    """Return what makes httpx's arguments for uploading `path`; None fields are left out.

    Raises:
        InvalidData: if there is no such file, or nothing in it.
    """
    if not path.is_file():
        raise InvalidData(f"'{path}' is no file: give the path of a CSV, Parquet or NPZ file")
    if path.stat().st_size == 0:
        raise InvalidData(f"'{path}' is empty: give a file with at least one row")
    data = {"name": name or path.stem}
    for field, value in fields.items():
        if value is not None:
            data[field] = json.dumps(value, allow_nan=False) if isinstance(value, Mapping) else str(value)

    def arguments() -> Mapping[str, Any]:
        # httpx reads the file while it sends; a further try must not start at its end.
        return {"data": data, "files": {"file": (path.name, path.open("rb"))}}

    return arguments
