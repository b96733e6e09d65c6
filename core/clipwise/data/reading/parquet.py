"""Parquet: flat columns, and lists of numbers of one length."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet as pq

from clipwise.data.reading.source import Format, Kind, Reader, SourceColumn, check_names, refused
from clipwise.errors import InvalidData

_BATCH_CELLS, _MOST_ROWS = 2**21, 65_536


class ParquetReader(Reader):
    """A Parquet file.

    Raises:
        InvalidData: if the file is damaged, or a column has a type that cannot be used.
    """

    format: ClassVar[Format] = "parquet"

    def __init__(self, path: Path) -> None:
        self._path = path
        with refused("the file cannot be read as Parquet"), self._open() as file:
            arrow = file.schema_arrow
            check_names(arrow.names)
            if file.metadata.num_rows == 0:
                raise InvalidData("the file has no rows")
            self.columns = tuple(self._column(file, field) for field in arrow)
        self._widths = {c.name: int(np.prod(c.shape)) for c in self.columns if c.kind == "array"}

    def _open(self, dictionary: Sequence[str] = ()) -> Any:
        return pq.ParquetFile(
            str(self._path), buffer_size=2**20, pre_buffer=False, read_dictionary=list(dictionary)
        )

    def _column(self, file: Any, field: Any) -> SourceColumn:
        kind, byte_sized = _kind(field.name, field.type)
        if kind != "array":
            return SourceColumn(name=field.name, kind=kind, byte_sized=byte_sized)
        if pa.types.is_fixed_size_list(field.type):
            width = int(field.type.list_size)
        else:
            first = next(file.iter_batches(batch_size=1, columns=[field.name])).column(0)
            width = len(first[0].as_py() or ())
        if width < 1:
            raise InvalidData(
                f"the list in column '{field.name}' is empty in row 1", row=1, column=field.name
            )
        return SourceColumn(name=field.name, kind="array", shape=(width,), byte_sized=byte_sized)

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        """Read the rows; strings come as dictionaries, so that a value that repeats is held once."""
        kinds = {column.name: column.kind for column in self.columns}
        texts = [name for name in names if kinds[name] == "text"]
        cells = sum(self._widths.get(name, 1) for name in names)
        size = max(1, min(_MOST_ROWS, _BATCH_CELLS // max(1, cells)))
        row = 0
        with refused("the file cannot be read as Parquet"), self._open(texts) as file:
            for batch in file.iter_batches(batch_size=size, columns=list(names)):
                columns = [self._plain(name, kinds[name], batch.column(name), row) for name in names]
                row += batch.num_rows
                yield pa.record_batch(columns, names=list(names))

    def _plain(self, name: str, kind: Kind, column: Any, row: int) -> Any:
        if kind == "array":
            return _rectangular(name, column, self._widths[name], row)
        if kind == "text":
            values = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
            return pa.DictionaryArray.from_arrays(
                values.indices.cast(pa.int32()), values.dictionary.cast(pa.string())
            )
        if pa.types.is_dictionary(column.type):
            return column.dictionary_decode()
        return column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column


def _kind(name: str, kind: Any) -> tuple[Kind, bool]:
    """Return what a column of this Arrow type is, and whether it fits into uint8."""
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_integer(values) or pa.types.is_floating(values) or pa.types.is_decimal(values):
        return "number", values == pa.uint8()
    if pa.types.is_boolean(values):
        return "truth", False
    if pa.types.is_string(values) or pa.types.is_large_string(values) or pa.types.is_null(values):
        return "text", False
    if pa.types.is_temporal(values):
        return "moment", False
    if pa.types.is_fixed_size_list(values) or pa.types.is_list(values) or pa.types.is_large_list(values):
        element = values.value_type
        if pa.types.is_integer(element) or pa.types.is_floating(element):
            return "array", element == pa.uint8()
    raise InvalidData(
        f"column '{name}' has the type {kind}, which cannot be used; "
        "give numbers, strings, truth values, moments or lists of numbers, or drop the column",
        column=name,
    )


def _rectangular(name: str, column: Any, width: int, row: int) -> Any:
    """Return a list column as a fixed-size list without gaps."""
    if pa.types.is_fixed_size_list(column.type):
        lengths_differ = pc.invert(pc.is_valid(column))
    else:
        lengths_differ = pc.not_equal(pc.fill_null(pc.list_value_length(column), -1), width)
    if pc.any(lengths_differ).as_py():
        wrong = row + int(pc.index(lengths_differ, True).as_py()) + 1
        raise InvalidData(
            f"the list in column '{name}', row {wrong:,}, is empty or has not {width} values as in row 1",
            row=wrong,
            column=name,
        )
    flat = column.flatten()
    if flat.null_count:
        wrong = row + int(pc.index(pc.is_null(flat), True).as_py()) // width + 1
        raise InvalidData(
            f"a value of the list in column '{name}', row {wrong:,}, is empty", row=wrong, column=name
        )
    return pa.FixedSizeListArray.from_arrays(flat, width)
