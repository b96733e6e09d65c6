"""Files by key over fsspec: a folder by default, object storage by URL.

A file is written aside under a temporary name and moved into its place when it is complete, so that a key
either names a whole file or nothing, and a failed write leaves nothing behind.
"""

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from clipwise.artifacts.failures import translated
from clipwise.artifacts.sink import Sink, Stored
from clipwise.errors import ConfigurationError, InvalidInput, Unavailable

_CHUNK = 2**20
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_ASIDE = ".incoming"


class ArtifactStore:
    """The artifact store at `url`: `file:///folder`, a path, `s3://bucket/prefix`, `memory://name`.

    Safe to share between threads. A key is `/`-separated names of letters, digits, `.`, `_` and `-`.

    Raises:
        ConfigurationError: if the URL cannot be used, or its backend is not installed.
    """

    def __init__(self, url: str) -> None:
        scheme = urlsplit(url).scheme
        try:
            if scheme == "file":
                # Path.as_uri() escapes spaces, and fsspec does not take them back.
                url = url2pathname(urlsplit(url).path)
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise ConfigurationError(
                f"CLIPWISE_ARTIFACTS_URL uses '{scheme}://', whose backend is not installed; "
                "for s3 install clipwise[s3]"
            ) from error
        except Exception as error:
            raise ConfigurationError(
                f"CLIPWISE_ARTIFACTS_URL ('{scheme}://...') cannot be used ({type(error).__name__}); "
                "give a folder, file:///folder or s3://bucket/prefix"
            ) from error
        self._folder = Path(self._root) if isinstance(self._fs, LocalFileSystem) else None
        self._root = self._root.rstrip("/")

    def _path(self, key: str) -> str:
        if len(key) > 500 or not _KEY.fullmatch(key):
            raise InvalidInput(
                "a key of the artifact store is names of letters, digits, '.', '_' and '-' joined by '/'"
            )
        return f"{self._root}/{key}"

    @contextmanager
    def writing(self, key: str, limit: int | None = None) -> Iterator[Sink]:
        """Give a sink for one file, which replaces what `key` named when the block ends without an error.

        Args:
            key: where the file will be.
            limit: most bytes that the sink takes.

        Raises:
            TooLarge: from the sink, over `limit`.
            Unavailable: if the store cannot be written to.
        """
        target = self._path(key)
        aside = f"{self._root}/{_ASIDE}/{uuid4().hex}"
        with translated("write"):
            self._fs.makedirs(f"{self._root}/{_ASIDE}", exist_ok=True)
            file = self._fs.open(aside, "wb")
        sink = Sink(key, file, limit)
        try:
            yield sink
            stored = sink.finish()
            self._move(aside, target)
            sink.stored = stored
        except BaseException:
            with suppress(Exception):
                file.close()
            with suppress(Exception):
                self._fs.rm_file(aside)
            raise

    def write(self, key: str, source: IO[bytes] | Iterable[bytes], limit: int | None = None) -> Stored:
        """Store a stream, or the chunks of an iterable, under `key`.

        Raises:
            TooLarge: over `limit` bytes.
            Unavailable: if the store cannot be written to.
        """
        with self.writing(key, limit) as sink:
            for chunk in _chunks(source):
                sink.write(chunk)
        assert sink.stored is not None  # noqa: S101 - the block above ended without an error
        return sink.stored

    def put_file(self, key: str, path: Path, *, move: bool = False) -> Stored:
        """Store the file at `path`; with `move` it is gone from there, without a copy where that is possible.

        Raises:
            Unavailable: if the store cannot be written to.
        """
        if move and self._folder is not None:
            with translated("write"), path.open("rb+") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
                os.fsync(file.fileno())
            self._move(str(path), self._path(key))
            return Stored(key=key, size=size, sha256=digest)
        with path.open("rb") as file:
            stored = self.write(key, file)
        if move:
            path.unlink(missing_ok=True)
        return stored

    def open(self, key: str) -> IO[bytes]:
        """Open a file for reading, as a stream.

        Raises:
            NotFound: if `key` names nothing.
            Unavailable: if the store cannot be read.
        """
        path = self._path(key)
        with translated(f"read '{key}'"):
            if self._folder is not None:
                return Path(path).open("rb")
            stream: IO[bytes] = self._fs.open(path, "rb")
            return stream

    def local_path(self, key: str, into: Path) -> Path:
        """Return a local path of the file: its own in a folder store, else of a download in `into`.

        Raises:
            NotFound: if `key` names nothing.
            Unavailable: if the store cannot be read, or `into` is full.
        """
        path = self._path(key)
        with translated(f"read '{key}'"):
            if self._folder is not None:
                if not Path(path).is_file():
                    raise FileNotFoundError(key)
                return Path(path)
            into.mkdir(parents=True, exist_ok=True)
            target = into / key.replace("/", "_")
            partial = target.with_name(f"{target.name}.{uuid4().hex}")
            try:
                self._fs.get_file(path, str(partial))
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            return target

    def exists(self, key: str) -> bool:
        """Return whether `key` names a file."""
        path = self._path(key)
        with translated("be read"):
            return bool(self._fs.isfile(path))

    def check(self) -> None:
        """Look whether the store answers, and whether its folder can be written to.

        Raises:
            Unavailable: if not.
        """
        if self._folder is not None:
            # It is made with the first file; until then, what counts is the folder that it will be in.
            nearest = next(path for path in (self._folder, *self._folder.parents) if path.exists())
            if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
                raise Unavailable(
                    "the artifact store's folder cannot be written to; check CLIPWISE_ARTIFACTS_URL and its "
                    "permissions"
                )
            return
        # `exists` takes whatever a backend raises for "there is none".
        with translated("be read"), suppress(FileNotFoundError):
            self._fs.invalidate_cache(self._root)
            self._fs.info(self._root)

    def delete(self, key: str) -> None:
        """Delete a file; nothing happens if there is none."""
        path = self._path(key)
        with translated("delete"), suppress(FileNotFoundError):
            self._fs.rm_file(path)
        self._drop_empty_folders(Path(path).parent)

    def delete_prefix(self, prefix: str) -> None:
        """Delete every file whose key begins with `prefix` and a `/`; nothing happens if there is none."""
        path = self._path(prefix)
        with translated("delete"), suppress(FileNotFoundError):
            if self._fs.isdir(path):
                self._fs.rm(path, recursive=True)
        self._drop_empty_folders(Path(path).parent)

    @contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """Give a folder that is gone afterwards, on the store's own disk where it has one."""
        parent = None
        if self._folder is not None:
            parent = self._folder / _ASIDE
            with translated("write"):
                parent.mkdir(parents=True, exist_ok=True)
        with translated("make a temporary folder"):
            folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, older_than_seconds: float = 86_400) -> int:
        """Delete what processes that were killed left aside; return how many files and folders it was."""
        if self._folder is None:
            return 0  # object storage expires incomplete uploads by its own rules
        oldest = time.time() - older_than_seconds
        swept = 0
        for entry in (self._folder / _ASIDE).glob("*"):
            with suppress(OSError):
                if entry.stat().st_mtime < oldest:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                    swept += 1
        return swept

    def _move(self, source: str, target: str) -> None:
        with translated("write"):
            if self._folder is None:
                self._fs.mv(source, target)
                return
            for attempt in range(100):
                # A deletion beside us can take the folder away at any moment between these two lines.
                try:
                    Path(target).parent.mkdir(parents=True, exist_ok=True)
                    _replace(Path(source), Path(target))
                except (FileNotFoundError, FileExistsError):
                    if attempt == 99 or not Path(source).exists() or Path(target).parent.is_file():
                        raise
                else:
                    return

    def _drop_empty_folders(self, folder: Path) -> None:
        if self._folder is None:
            return
        while folder != self._folder and folder.is_relative_to(self._folder):
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def _replace(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # another disk
            raise
        aside = target.with_name(f".{uuid4().hex}")
        try:
            shutil.copyfile(source, aside)
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
        source.unlink()


def _chunks(source: Any) -> Iterator[bytes]:
    if not hasattr(source, "read"):
        yield from source
        return
    while chunk := source.read(_CHUNK):
        yield chunk
