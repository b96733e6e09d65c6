"""Rows on disk: an Arrow IPC file that is memory-mapped and sampled at random.

The file is row-major on purpose. Training reads a few hundred scattered rows for each step, so all
numbers of a row lie side by side in one fixed-size list, all category codes in another, and each image
or array in one of its own: a sampled row costs a page or two, whatever the number of columns.

    column          type                                    one per
    numbers         fixed_size_list<float32 or float64>     file, number features in schema order
    categories      fixed_size_list<int32>                  file, index into each feature's `categories`
    array:<name>    fixed_size_list<uint8 or float32>       image or array feature, flattened row by row
    target          int64 class index, or float64           file
    unit            uint64 pseudonym of the row's unit       file with `unit.column`

There are no nulls. Every record batch but the last holds the same number of rows, so row i lies in
batch `i // rows_per_batch`.
"""

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipwise.data.schema import ArrayFeature, CategoryFeature, DatasetSchema, ImageFeature, NumberFeature
from clipwise.errors import InvalidData

NUMBERS, CATEGORIES, ARRAY_PREFIX, TARGET, UNIT = "numbers", "categories", "array:", "target", "unit"
_FORMAT, _ROWS_PER_BATCH = b"clipwise.rows", b"clipwise.rows_per_batch"
_BATCH_BYTES, _MOST_ROWS_PER_BATCH = 4 * 2**20, 65_536
_FAULT_BYTES, _RESIDENT_BYTES = 512 * 2**10, 64 * 2**20
_FLOAT32_MAX = float(np.finfo(np.float32).max)

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Block:
    """`n` consecutive rows in the file's layout, every array with `n` as its first axis.

    Attributes:
        numbers: `(n, number features)`.
        categories: `(n, category features)`, indices.
        arrays: feature name to `(n, width)`.
        targets: `(n,)` class indices or numbers.
        units: `(n,)` pseudonyms, or None where a row is a unit of its own.
    """

    targets: Array
    numbers: Array | None = None
    categories: Array | None = None
    arrays: Mapping[str, Array] = field(default_factory=dict)
    units: Array | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def columns(self) -> dict[str, Array]:
        """Return the block's arrays under the names that they have in the file."""
        named = {NUMBERS: self.numbers, CATEGORIES: self.categories, TARGET: self.targets, UNIT: self.units}
        arrays = {f"{ARRAY_PREFIX}{name}": values for name, values in self.arrays.items()}
        return {name: values for name, values in {**named, **arrays}.items() if values is not None}


def needs_float64(bounds: tuple[float, float]) -> bool:
    """Return whether float32 would blur values within `bounds` by more than 1e-4 of their range."""
    low, high = bounds
    half = high / 2 - low / 2
    largest = max(abs(low), abs(high))
    return largest > 1e3 * half or largest > _FLOAT32_MAX / 4 or half < 1e-30


def arrow_schema(schema: DatasetSchema, array_types: Mapping[str, type[np.generic]]) -> pa.Schema:
    """Return the file's columns for a data set.

    Args:
        schema: the data set's schema.
        array_types: storage type of image and array features, `numpy.float32` where missing.
    """
    numbers = [feature for feature in schema.features if isinstance(feature, NumberFeature)]
    categories = [feature for feature in schema.features if isinstance(feature, CategoryFeature)]
    fields: list[tuple[str, Any]] = []
    if numbers:
        wide = any(needs_float64(feature.bounds) for feature in numbers)
        fields.append((NUMBERS, pa.list_(pa.float64() if wide else pa.float32(), len(numbers))))
    if categories:
        fields.append((CATEGORIES, pa.list_(pa.int32(), len(categories))))
    for feature in schema.features:
        if isinstance(feature, ImageFeature | ArrayFeature):
            stored = pa.from_numpy_dtype(array_types.get(feature.name, np.float32))
            width = int(np.prod(feature.shape, dtype=np.int64))
            fields.append((f"{ARRAY_PREFIX}{feature.name}", pa.list_(stored, width)))
    fields.append((TARGET, pa.int64() if schema.task == "classification" else pa.float64()))
    if schema.unit.column is not None:
        fields.append((UNIT, pa.uint64()))
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])


class RowWriter:
    """Writes blocks of any length as record batches of one length.

    Example:
        >>> with RowWriter(path, schema) as writer:  # doctest: +SKIP
        ...     writer.append(block)
    """

    def __init__(
        self,
        path: Path,
        schema: DatasetSchema,
        *,
        array_types: Mapping[str, type[np.generic]] | None = None,
        rows_per_batch: int | None = None,
    ) -> None:
        columns = arrow_schema(schema, array_types or {})
        row_bytes = sum(_width(column.type) * _value_type(column.type).itemsize for column in columns)
        self._size: int = rows_per_batch or max(1, min(_MOST_ROWS_PER_BATCH, _BATCH_BYTES // row_bytes))
        self._schema = columns.with_metadata({_FORMAT: b"1", _ROWS_PER_BATCH: str(self._size).encode()})
        self._buffers = {column.name: self._empty(column.type) for column in columns}
        self._filled = 0
        self.rows = 0
        self._file = pa.OSFile(str(path), "wb")
        try:
            self._writer = pa.ipc.new_file(self._file, self._schema)
        except BaseException:
            self._file.close()
            raise

    def _empty(self, kind: Any) -> Array:
        width = _width(kind)
        shape = (self._size, width) if pa.types.is_fixed_size_list(kind) else (self._size,)
        return np.empty(shape, _value_type(kind))

    def append(self, block: Block) -> None:
        """Add the rows of `block`. Numbers too large for float32 become the largest that it has."""
        columns = block.columns()
        start = 0
        while start < len(block):
            taken = min(self._size - self._filled, len(block) - start)
            for name, buffer in self._buffers.items():
                values = columns[name][start : start + taken]
                if buffer.dtype == np.float32 and values.dtype == np.float64:
                    values = np.clip(values, -_FLOAT32_MAX, _FLOAT32_MAX)
                buffer[self._filled : self._filled + taken] = values
            self._filled += taken
            self.rows += taken
            start += taken
            if self._filled == self._size:
                self._flush()

    def _flush(self) -> None:
        if self._filled:
            values = [self._buffers[column.name][: self._filled] for column in self._schema]
            arrays = [_as_arrow(kind.type, array) for kind, array in zip(self._schema, values, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
            self._filled = 0

    def close(self) -> None:
        """Write what is buffered and the file's index."""
        try:
            self._flush()
            self._writer.close()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


class RowFile:
    """A row file, memory-mapped: opening costs its index, sampling costs the rows that are sampled.

    Raises:
        InvalidData: if the file is not a row file.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            with Path(path).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            mapped.madvise(mmap.MADV_RANDOM)  # readahead would load neighbours that nobody samples
            self._reader = pa.ipc.open_file(pa.py_buffer(mapped))
            self._mapped = mapped
        except (OSError, ValueError, pa.ArrowException) as error:
            # An error of the system names the whole path, which is the machine's business.
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise InvalidData(f"'{Path(path).name}' cannot be read as a row file: {reason}") from error
        self._schema: Any = self._reader.schema
        metadata = self._schema.metadata or {}
        if metadata.get(_FORMAT) != b"1":
            raise InvalidData(f"'{Path(path).name}' is not a row file of this version; ingest the data again")
        self.rows_per_batch = int(metadata[_ROWS_PER_BATCH])
        batches = self._reader.num_record_batches
        last = self._reader.get_batch(batches - 1).num_rows if batches else 0
        self._rows: int = max(0, batches - 1) * self.rows_per_batch + last
        self._row_bytes = sum(_width(c.type) * _value_type(c.type).itemsize for c in self._schema)
        self._touched = 0
        self._batch = lru_cache(maxsize=4096)(self._views)

    def __len__(self) -> int:
        return self._rows

    def _views(self, batch: int) -> list[Array]:
        columns = self._reader.get_batch(batch).columns
        return [_as_numpy(column) for column in columns]

    def take(self, indices: npt.ArrayLike) -> pa.Table:
        """Return the rows at `indices`, in that order and with repetitions; only these are read.

        Raises:
            InvalidData: if an index is not within `[0, len(self))`.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self._rows):
            raise InvalidData(f"rows {wanted.min()} to {wanted.max()} were asked for; there are {self._rows}")
        taken = [
            np.empty(
                (len(wanted), _width(c.type)) if pa.types.is_fixed_size_list(c.type) else len(wanted),
                _value_type(c.type),
            )
            for c in self._schema
        ]
        batch_of, local = np.divmod(wanted, self.rows_per_batch)
        for batch, places in _grouped(batch_of):
            for out, view in zip(taken, self._batch(batch), strict=True):
                out[places] = view[local[places]]
        self._release(len(wanted))
        arrays = [_as_arrow(column.type, out) for column, out in zip(self._schema, taken, strict=True)]
        return pa.table(arrays, schema=self._schema)

    def _release(self, count: int) -> None:
        """Hand mapped pages back now and then; the page cache keeps what it has room for.

        One touched page maps its neighbours as well, up to a large folio of them: without this the process
        would seem to hold the whole file after some thousand rows.
        """
        self._touched += count * (self._row_bytes + _FAULT_BYTES)
        if self._touched > _RESIDENT_BYTES:
            self._touched = 0
            if len(self._mapped) > _RESIDENT_BYTES:
                self._mapped.madvise(mmap.MADV_DONTNEED)


def _grouped(keys: npt.NDArray[np.int64]) -> Sequence[tuple[int, npt.NDArray[np.int64]]]:
    """Return each key with the places where it stands."""
    order = np.argsort(keys, kind="stable")
    present, starts = np.unique(keys[order], return_index=True)
    # Not strict: splitting nothing gives one empty part.
    return list(zip(present.tolist(), np.split(order, starts[1:]), strict=False))


def _width(kind: Any) -> int:
    return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else 1


def _value_type(kind: Any) -> np.dtype[Any]:
    value_type = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
    stored: np.dtype[Any] = np.dtype(value_type.to_pandas_dtype())
    return stored


def _as_arrow(kind: Any, values: Array) -> Any:
    if not pa.types.is_fixed_size_list(kind):
        return pa.array(values, type=kind)
    flat = pa.array(values.reshape(-1), type=kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def _as_numpy(column: Any) -> Array:
    """Return an arrow column without nulls as a view: `(n,)`, or `(n, width)` for fixed-size lists."""
    if pa.types.is_fixed_size_list(column.type):
        flat: Array = column.flatten().to_numpy(zero_copy_only=True)
        return flat.reshape(len(column), column.type.list_size)
    plain: Array = column.to_numpy(zero_copy_only=True)
    return plain


def matrix(table: pa.Table, name: str) -> Array:
    """Return a column of a sampled table as numpy: `(n,)`, or `(n, width)` for fixed-size lists."""
    chunked = table.column(name)
    if chunked.num_chunks == 1:
        return _as_numpy(chunked.chunk(0))
    return _as_numpy(chunked.combine_chunks())
