"""NPZ: named NumPy arrays of one length, streamed out of their zip file."""

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from clipwise.data.reading.source import Format, Kind, Reader, SourceColumn, check_names, refused
from clipwise.errors import InvalidData

_BATCH_BYTES, _MOST_ROWS = 8 * 2**20, 65_536
_MOST_MEMBERS = 10_000
_FORTRAN_BYTES = 256 * 2**20
EXPANDED_LIMIT = 64 * 2**30
"""Most bytes that the arrays of one file may have, unpacked."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One array: where it is in the zip file, and what its header says."""

    name: str
    file: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def row_bytes(self) -> int:
        return int(self.dtype.itemsize * math.prod(self.shape[1:]))


class NpzReader(Reader):
    """An `.npz` file as `numpy.savez` writes it: each array's first axis is the rows.

    A 1-D array is a column; one with more axes is an array or image feature. Nothing is unpickled: arrays
    of Python objects are refused. What an array's header claims is checked before anything is unpacked.

    Args:
        path: the file.
        expanded_limit: most bytes of all arrays together, unpacked.

    Raises:
        InvalidData: if the file is damaged or too large unpacked, or an array cannot be used.
    """

    format: ClassVar[Format] = "npz"

    def __init__(self, path: Path, *, expanded_limit: int = EXPANDED_LIMIT) -> None:
        self._path = path
        with refused("the file cannot be read as NPZ"), zipfile.ZipFile(path) as archive:
            members = _members(archive)
        notes = [f"'{m.name}' is a single value and was left out." for m in members if not m.shape]
        members = [member for member in members if member.shape]
        self.notes = tuple(notes)
        self._check(members, expanded_limit)
        self._members = {member.name: member for member in members}
        self.columns = tuple(_column(member) for member in members)

    def _check(self, members: Sequence[_Member], expanded_limit: int) -> None:
        if not members:
            raise InvalidData("the file holds no arrays; write it by numpy.savez(path, x=..., y=...)")
        check_names([member.name for member in members])
        lengths = {member.name: member.shape[0] for member in members}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"'{name}' {length:,}" for name, length in list(lengths.items())[:10])
            raise InvalidData(f"the arrays differ in length ({listed}); their first axis is the rows")
        if members[0].shape[0] == 0:
            raise InvalidData("the arrays have no rows")
        for member in members:
            if member.row_bytes == 0:
                raise InvalidData(f"array '{member.name}' has the empty shape {list(member.shape)}")
            if member.fortran and len(member.shape) > 1 and _bytes(member) > _FORTRAN_BYTES:
                raise InvalidData(
                    f"array '{member.name}' is stored column by column; "
                    "save numpy.ascontiguousarray(array) instead"
                )
        total = sum(_bytes(member) for member in members)
        if total > expanded_limit:
            raise InvalidData(
                f"the arrays have {total:,} bytes unpacked and the most is {expanded_limit:,}; "
                "use a smaller type, or upload fewer rows"
            )

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        """Read the rows, unpacking as far as needed."""
        members = [self._members[name] for name in names]
        if not members:
            return
        count = members[0].shape[0]
        size = max(1, min(_MOST_ROWS, _BATCH_BYTES // sum(member.row_bytes for member in members)))
        with refused("the file cannot be read as NPZ"), ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self._path))
            streams = [_Stream(stack.enter_context(archive.open(m.file)), m) for m in members]
            for start in range(0, count, size):
                rows = min(size, count - start)
                arrays = [_arrow(stream.read(rows)) for stream in streams]
                yield pa.record_batch(arrays, names=list(names))


class _Stream:
    """Reads an array's rows one piece after the other."""

    def __init__(self, file: Any, member: _Member) -> None:
        _header(file)
        self._file = file
        self._member = member
        self._whole: np.ndarray[Any, Any] | None = None
        self._start = 0

    def read(self, rows: int) -> np.ndarray[Any, Any]:
        member = self._member
        shape = (rows, *member.shape[1:])
        if not (member.fortran and len(member.shape) > 1):
            return np.frombuffer(self._exactly(rows * member.row_bytes), member.dtype).reshape(shape)
        if self._whole is None:
            values = np.frombuffer(self._exactly(_bytes(member)), member.dtype)
            self._whole = values.reshape(member.shape, order="F")
        self._start += rows
        return self._whole[self._start - rows : self._start]

    def _exactly(self, count: int) -> bytes:
        pieces = []
        while count:
            piece = self._file.read(min(count, 2**22))
            if not piece:
                raise InvalidData(
                    f"array '{self._member.name}' ends before its last row; write the file again"
                )
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


def _bytes(member: _Member) -> int:
    return member.shape[0] * member.row_bytes if member.shape else member.dtype.itemsize


def _members(archive: zipfile.ZipFile) -> list[_Member]:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > _MOST_MEMBERS:
        raise InvalidData(f"the file holds {len(infos):,} arrays and the most is {_MOST_MEMBERS:,}")
    foreign = next((info.filename for info in infos if not info.filename.endswith(".npy")), None)
    if foreign is not None:
        hint = "an Excel workbook? Save it as CSV" if foreign.startswith(("xl/", "[Content")) else "not NPZ"
        raise InvalidData(f"the file is a zip file with something else than NumPy arrays in it: {hint}")
    members = []
    for info in infos:
        with archive.open(info) as file:
            shape, fortran, dtype = _header(file)
        member = _Member(
            name=info.filename.removesuffix(".npy"),
            file=info.filename,
            shape=shape,
            dtype=dtype,
            fortran=fortran,
        )
        if dtype.hasobject:
            raise InvalidData(
                f"array '{member.name}' holds Python objects, which are never unpickled; "
                "save it as numbers or as strings (array.astype(str))"
            )
        if _kind(dtype) is None or (len(shape) > 1 and _kind(dtype) == "text"):
            raise InvalidData(
                f"array '{member.name}' has the type {dtype}, which cannot be used here; save it as numbers"
            )
        members.append(member)
    return members


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise InvalidData("an array is in a newer NumPy format; save plain arrays of numbers or strings")
    if any(side < 0 for side in shape) or len(shape) > 32:
        raise InvalidData("an array has an impossible shape; write the file again")
    return shape, fortran, dtype


def _kind(dtype: np.dtype[Any]) -> Kind | None:
    kinds: dict[str, Kind] = {
        "b": "truth",
        "i": "number",
        "u": "number",
        "f": "number",
        "U": "text",
        "S": "text",
    }
    return kinds.get(dtype.kind)


def _column(member: _Member) -> SourceColumn:
    shape = member.shape[1:]
    kind = _kind(member.dtype)
    byte_sized = member.dtype in (np.uint8, np.bool_)
    if not shape or (shape == (1,)):  # (rows, 1) is a column as well
        return SourceColumn(name=member.name, kind=kind or "number", byte_sized=byte_sized)
    return SourceColumn(name=member.name, kind="array", shape=shape, byte_sized=byte_sized)


def _arrow(values: np.ndarray[Any, Any]) -> Any:
    kind = values.dtype.kind
    if kind in "US":
        plain = np.char.decode(values, "latin-1") if kind == "S" else values
        return pa.array(plain.reshape(len(values)).tolist(), type=pa.string())
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    width = int(np.prod(values.shape[1:], dtype=np.int64))
    if width > 1 and kind == "b":
        native = native.astype(np.uint8)
    if kind == "f" and native.dtype.itemsize not in (4, 8):
        native = native.astype(np.float32 if native.dtype.itemsize == 2 else np.float64)
    if values.ndim == 1 or width == 1:
        return pa.array(native.reshape(-1))
    flat = pa.array(np.ascontiguousarray(native).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, width)
