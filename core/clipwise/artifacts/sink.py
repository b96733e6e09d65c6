"""Where bytes go on their way into the store: counted, hashed, limited."""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from clipwise.artifacts.failures import translated
from clipwise.errors import TooLarge


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file in the store: its key, size in bytes and SHA-256 in hexadecimal."""

    key: str
    size: int
    sha256: str


class Sink:
    """Takes the bytes of one file; `ArtifactStore.writing` makes it and puts the file into place.

    Attributes:
        size: bytes written so far.
        stored: the file, once it is in its place.
    """

    def __init__(self, key: str, file: Any, limit: int | None) -> None:
        self._key = key
        self._file = file
        self._limit = limit
        self._hash = hashlib.sha256()
        self.size = 0
        self.stored: Stored | None = None

    def write(self, chunk: bytes) -> None:
        """Add `chunk`.

        Raises:
            TooLarge: if the file would be over its limit.
            Unavailable: if the store cannot be written to.
        """
        self.size += len(chunk)
        if self._limit is not None and self.size > self._limit:
            raise TooLarge(
                f"the file is larger than the limit of {self._limit:,} bytes; "
                "split it, or ask the operator to raise CLIPWISE_MAX_UPLOAD_BYTES"
            )
        self._hash.update(chunk)
        with translated("write"):
            self._file.write(chunk)

    def finish(self) -> Stored:
        """Write out what is buffered, to the disk itself where there is one."""
        with translated("write"):
            self._file.flush()
            # fsspec's remote and in-memory files have no descriptor, or refuse to give one.
            if hasattr(self._file, "fileno") and (descriptor := _descriptor(self._file)) is not None:
                os.fsync(descriptor)
            self._file.close()
        return Stored(key=self._key, size=self.size, sha256=self._hash.hexdigest())


def _descriptor(file: Any) -> int | None:
    try:
        return int(file.fileno())
    except OSError:
        return None
