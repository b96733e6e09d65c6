"""Multipart uploads, read as they arrive: the file goes to disk in pieces, never into memory."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from clipwise.artifacts import ArtifactStore
from clipwise.artifacts.failures import translated
from clipwise.errors import InvalidInput, Problem, TooLarge
from clipwise_api.bodies import InvalidBody, is_storable

MAX_FIELD_BYTES = 2**20
MAX_PARTS = 20
WRITE_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A complete upload: the file on disk, what it was called, and the other fields of the form."""

    path: Path
    filename: str
    sha256: str
    fields: dict[str, str]


@dataclass
class _Part:
    """The part of the form that is being read."""

    headers: dict[str, str] = field(default_factory=dict)
    header_name: bytes = b""
    header_value: bytes = b""
    name: str = ""
    filename: str | None = None
    content: bytearray = field(default_factory=bytearray)


class _Form:
    """Collects the parser's callbacks; bytes of the file wait in `pending` until they are written."""

    def __init__(self, max_file_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.pending = bytearray()
        self.hash = hashlib.sha256()
        self.complete = False
        self._file_bytes = 0
        self._field_bytes = 0
        self._parts = 0
        self._max_file_bytes = max_file_bytes
        self._part = _Part()

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _invalid("", f"the form has more than {MAX_PARTS} parts")
        self._part = _Part()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def on_header_end(self) -> None:
        part = self._part
        part.headers[part.header_name.decode("latin-1").lower()] = part.header_value.decode("latin-1")
        part.header_name = part.header_value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._part.headers.get("content-disposition", ""))
        self._part.name = _text(options.get(b"name", b""), "name")
        if b"filename" in options or self._part.name == "file":
            if self._part.name != "file" or self.filename is not None:
                raise _invalid("/file", "send one file, as the field 'file'")
            self._part.filename = self.filename = _text(options.get(b"filename", b""), "filename")
        elif not self._part.name:
            raise _invalid("", "a part of the form has no name")
        elif self._part.name in self.fields:
            raise _invalid(f"/{self._part.name}", "the field is there twice; send it once")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.filename is not None:
            self._file_bytes += end - start
            if self._file_bytes > self._max_file_bytes:
                raise too_large(self._max_file_bytes)
            self.pending += data[start:end]
            return
        self._field_bytes += end - start
        if self._field_bytes > MAX_FIELD_BYTES:
            raise TooLarge(f"the fields beside the file are larger than {MAX_FIELD_BYTES:,} bytes")
        self._part.content += data[start:end]

    def on_part_end(self) -> None:
        if self._part.filename is None:
            self.fields[self._part.name] = _text(bytes(self._part.content), self._part.name)

    def on_end(self) -> None:
        self.complete = True


@asynccontextmanager
async def receive(request: Request, artifacts: ArtifactStore, max_file_bytes: int) -> AsyncIterator[Upload]:
    """Receive a multipart form; its file is gone when the block ends, however it ends.

    Raises:
        InvalidBody: 415 if the body is no form, 400 if it is broken.
        InvalidInput: if a field is missing or cannot be read.
        TooLarge: over the limit.
        Unavailable: if the file cannot be written.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidBody(415, "send a form: Content-Type: multipart/form-data, with 'file' and 'name'")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_file_bytes + 2 * MAX_FIELD_BYTES:
        raise too_large(max_file_bytes)
    folder_scope = artifacts.temporary_folder()
    folder = await run_in_threadpool(folder_scope.__enter__)
    try:
        path = folder / "upload"
        form = await _read(request, options[b"boundary"], path, max_file_bytes)
        if form.filename is None:
            raise _invalid("/file", "the form has no 'file'; send a CSV, Parquet or NPZ file")
        yield Upload(path=path, filename=form.filename, sha256=form.hash.hexdigest(), fields=form.fields)
    finally:
        # A client that leaves cancels this task: the folder goes all the same.
        await asyncio.shield(asyncio.to_thread(folder_scope.__exit__, None, None, None))


async def _read(request: Request, boundary: bytes, path: Path, max_file_bytes: int) -> _Form:
    form = _Form(max_file_bytes)
    callbacks = {name: getattr(form, name) for name in dir(form) if name.startswith("on_")}
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # callbacks by name
        file = await run_in_threadpool(path.open, "wb")
        try:
            async for chunk in request.stream():
                parser.write(chunk)
                if len(form.pending) >= WRITE_BYTES:
                    await _write(file, form)
            parser.finalize()
            await _write(file, form)
        finally:
            # Everything was flushed, or could not be: closing has no news.
            with suppress(OSError):
                await asyncio.shield(asyncio.to_thread(file.close))
    except (FormParserError, UnicodeError) as error:
        raise InvalidBody(400, "the body is no complete multipart form") from error
    if not form.complete:
        raise InvalidBody(400, "the body is no complete multipart form: its end is missing")
    return form


async def _write(file: IO[bytes], form: _Form) -> None:
    data, form.pending = form.pending, bytearray()

    def write() -> None:
        form.hash.update(data)
        with translated("write"):
            file.write(data)
            file.flush()

    await run_in_threadpool(write)


def too_large(limit: int) -> TooLarge:
    """Return the error for a file over its limit."""
    return TooLarge(f"the file is larger than {limit:,} bytes; CLIPWISE_MAX_UPLOAD_BYTES sets the limit")


def _text(value: bytes, name: str) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise _invalid(f"/{name}", "the text is not UTF-8") from None
    if not is_storable(text):
        raise _invalid(f"/{name}", "the text has a NUL character; remove it")
    return text


def _invalid(pointer: str, detail: str) -> InvalidInput:
    return InvalidInput(f"{pointer or '/'}: {detail}", (Problem(pointer=pointer, detail=detail),))
