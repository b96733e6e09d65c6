"""From a source file to a row file, by its schema; every cell that does not fit is an error with its place.

Errors name row and column and never a cell's value: rows can be private, and errors reach logs.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipwise.data import cells
from clipwise.data.reading import Reader, SourceColumn
from clipwise.data.rows import Block, RowWriter
from clipwise.data.schema import ArrayFeature, CategoryFeature, DatasetSchema, ImageFeature, NumberFeature
from clipwise.errors import InvalidData, InvalidSchema, Problem

_ELEMENT = re.compile(r"(.+)\[(\d+)\]")


@dataclass(frozen=True, kw_only=True)
class IngestResult:
    """What ingestion made: the number of rows, and what the user should know."""

    rows: int
    notes: tuple[str, ...]


@dataclass
class _Filled:
    """Cells that were filled, for the notes."""

    counts: dict[str, int]

    def add(self, name: str, count: int) -> None:
        if count:
            self.counts[name] = self.counts.get(name, 0) + count


def ingest(reader: Reader, schema: DatasetSchema, destination: Path) -> IngestResult:
    """Write the rows of `reader` to `destination`, as `schema` reads them.

    Raises:
        InvalidSchema: if a column is missing or of another kind, or a declared number is not so.
        InvalidData: if a cell does not fit its column; it names row and column.
    """
    plan = _Plan(reader, schema)
    with RowWriter(destination, schema, array_types=plan.array_types) as writer:
        for batch in reader.batches(plan.sources):
            writer.append(plan.block(batch, writer.rows))
    if writer.rows == 0:
        raise InvalidData("the file has no rows below its column names; add rows and upload it again")
    plan.check_size(writer.rows)
    notes = tuple(
        f"{count:,} empty or unknown cell{'s' if count > 1 else ''} of '{name}' became its 'fill'."
        for name, count in plan.filled.counts.items()
    )
    return IngestResult(rows=writer.rows, notes=notes)


class _Plan:
    """Which source column becomes what."""

    def __init__(self, reader: Reader, schema: DatasetSchema) -> None:
        self._columns = {column.name: column for column in reader.columns}
        self._schema = schema
        self._places = {
            feature.name: cells.label_places(feature.categories)
            for feature in schema.features
            if isinstance(feature, CategoryFeature)
        }
        self._class_places = cells.label_places(schema.classes or ())
        self._salt = secrets.token_bytes(16)
        self._units: list[npt.NDArray[np.uint64]] = []
        self.filled = _Filled(counts={})
        self.array_types: dict[str, type[np.generic]] = {}
        self.sources = tuple(dict.fromkeys(self._checked_sources()))

    def _checked_sources(self) -> Iterator[str]:
        for place, feature in enumerate(self._schema.features):
            pointer = f"/features/{place}"
            source = self._source(feature.name, f"{pointer}/name")
            element = source.name != feature.name
            if isinstance(feature, ImageFeature | ArrayFeature):
                self._check_array(feature, source, pointer)
            elif source.kind == "array" and not element:
                raise _invalid(
                    f"{pointer}/type",
                    f"'{feature.name}' holds arrays of shape {list(source.shape)}; "
                    f"make it an array or an image, or name single values '{feature.name}[0]'",
                )
            elif source.kind == "moment":
                raise _invalid(
                    f"{pointer}/type",
                    f"'{feature.name}' holds moments; store them as numbers, such as days since a fixed one",
                )
            yield source.name
        for pointer, name in (("/target", self._schema.target), ("/unit/column", self._schema.unit.column)):
            if name is not None:
                source = self._source(name, pointer)
                if source.kind == "array" and source.name == name:
                    raise _invalid(
                        pointer,
                        f"'{name}' holds arrays of shape {list(source.shape)}; give one value for each row",
                    )
                yield source.name

    def _source(self, name: str, pointer: str) -> SourceColumn:
        """Return the column that `name` means: itself, or the array of which it is one value, `x[3]`."""
        if name in self._columns:
            return self._columns[name]
        element = _ELEMENT.fullmatch(name)
        if element is not None and element[1] in self._columns:
            source = self._columns[element[1]]
            if source.kind == "array" and int(element[2]) < int(np.prod(source.shape)):
                return source
        known = ", ".join(f"'{known[:60]}'" for known in list(self._columns)[:30])
        more = f" and {len(self._columns) - 30} more" if len(self._columns) > 30 else ""
        raise _invalid(pointer, f"the file has no column '{name[:100]}'; it has {known}{more}")

    def _check_array(self, feature: ImageFeature | ArrayFeature, source: SourceColumn, pointer: str) -> None:
        if source.kind != "array":
            raise _invalid(f"{pointer}/type", f"'{feature.name}' is no array in the file; make it a number")
        if np.prod(source.shape, dtype=np.int64) != np.prod(feature.shape, dtype=np.int64):
            raise _invalid(
                f"{pointer}/shape",
                f"'{feature.name}' has the shape {list(source.shape)} in the file, not {list(feature.shape)}",
            )
        if source.byte_sized:
            self.array_types[feature.name] = np.uint8

    def block(self, batch: Any, before: int) -> Block:
        """Return the rows of one batch; `before` counts the rows of earlier ones."""
        numbers: list[npt.NDArray[np.float64]] = []
        categories: list[npt.NDArray[np.int64]] = []
        arrays: dict[str, npt.NDArray[Any]] = {}
        for feature in self._schema.features:
            column = self._column(batch, feature.name)
            if isinstance(feature, NumberFeature):
                numbers.append(self._numbers(feature.name, column, feature.fill, before))
            elif isinstance(feature, CategoryFeature):
                categories.append(self._categories(feature, column, before))
            else:
                arrays[feature.name] = _array(feature.name, column, before)
        return Block(
            numbers=np.stack(numbers, axis=1) if numbers else None,
            categories=np.stack(categories, axis=1) if categories else None,
            arrays=arrays,
            targets=self._targets(self._column(batch, self._schema.target), before),
            units=self._unit_codes(batch, before),
        )

    def _column(self, batch: Any, name: str) -> Any:
        if name in self._columns:
            return batch.column(name)
        element = _ELEMENT.fullmatch(name)
        assert element is not None  # noqa: S101 - checked when the plan was made
        column = batch.column(element[1])
        return column.flatten()[int(element[2]) :: column.type.list_size]

    def _numbers(self, name: str, column: Any, fill: float | None, before: int) -> npt.NDArray[np.float64]:
        found = cells.numbers(column)
        if found.wrong.any():
            raise _not_a_number(name, column, found.wrong, before)
        if found.empty.any():
            if fill is None:
                raise _at(found.empty, before, name, "is empty", "fill it in, or give the feature a 'fill'")
            self.filled.add(name, int(found.empty.sum()))
            found.values[found.empty] = fill
        return found.values

    def _categories(self, feature: CategoryFeature, column: Any, before: int) -> npt.NDArray[np.int64]:
        places = self._places[feature.name]
        codes, empty = cells.codes_of(cells.labels(column), places)
        unknown = codes < 0
        if unknown.any():
            if feature.fill is None:
                what = "is empty" if empty[np.argmax(unknown)] else "holds none of the categories"
                raise _at(
                    unknown, before, feature.name, what, "correct it, list it, or give the feature a 'fill'"
                )
            self.filled.add(feature.name, int(unknown.sum()))
            codes[unknown] = places[feature.fill]
        return codes

    def _targets(self, column: Any, before: int) -> npt.NDArray[Any]:
        name = self._schema.target
        if self._schema.task == "classification":
            codes, empty = cells.codes_of(cells.labels(column), self._class_places)
            unknown = codes < 0
            if unknown.any():
                if empty[np.argmax(unknown)]:
                    raise _at(
                        unknown, before, name, "is empty", "every row needs a target: fill it in or drop it"
                    )
                raise _at(
                    unknown, before, name, "holds none of the classes", "correct it, or list it in 'classes'"
                )
            return codes
        found = cells.numbers(column)
        if found.wrong.any():
            raise _not_a_number(name, column, found.wrong, before)
        if found.empty.any():
            raise _at(
                found.empty, before, name, "is empty", "every row needs a target: fill it in or drop it"
            )
        return found.values

    def _unit_codes(self, batch: Any, before: int) -> npt.NDArray[np.uint64] | None:
        """Return each row's unit as a salted hash: who it is stays out of what a runner reads."""
        name = self._schema.unit.column
        if name is None:
            return None
        found = cells.labels(self._column(batch, name))
        hashes = np.array([_hash(self._salt, unit) for unit in found.names] + [0], np.uint64)
        empty = np.array([not unit or cells.is_empty_word(unit) for unit in found.names] + [True])[
            found.codes
        ]
        if empty.any():
            raise _at(empty, before, name, "is empty", "every row needs a unit")
        units: npt.NDArray[np.uint64] = hashes[found.codes]
        self._units.append(units)
        return units

    def check_size(self, rows: int) -> None:
        """Compare the public numbers with the file.

        Raises:
            InvalidSchema: if a declared size is not the number of units, or a unit has too many rows.
        """
        size, unit = self._schema.size, self._schema.unit
        what, actual = "rows", rows
        if unit.column is not None:
            counts = np.unique(np.concatenate(self._units), return_counts=True)[1]
            what, actual = "units", len(counts)
            if counts.max() > unit.max_rows:
                raise _invalid(
                    "/unit/max_rows",
                    f"one unit of '{unit.column}' has {counts.max():,} rows and 'max_rows' is "
                    f"{unit.max_rows:,}; raise it, or keep fewer rows of each unit",
                )
        if size.value != actual:
            raise _invalid(
                "/size/value",
                f"the file has {actual:,} {what} and the schema says {size.value:,}; give {actual}",
            )


def _array(name: str, column: Any, before: int) -> npt.NDArray[Any]:
    flat = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    if flat.dtype == np.uint8:
        return np.asarray(flat)
    wrong = ~np.isfinite(flat).all(axis=1)
    if wrong.any():
        raise _at(wrong, before, name, "holds a value that is not finite", "replace it by a number")
    limit = float(np.finfo(np.float32).max)
    clipped: npt.NDArray[np.float32] = np.clip(flat, -limit, limit).astype(np.float32, copy=False)
    return clipped


def _hash(salt: bytes, unit: str) -> int:
    return int.from_bytes(hashlib.blake2b(unit.encode(), digest_size=8, key=salt).digest())


def _invalid(pointer: str, detail: str) -> InvalidSchema:
    return InvalidSchema(detail, (Problem(pointer=pointer, detail=detail, code="does_not_fit"),))


def _at(mask: npt.NDArray[np.bool_], before: int, name: str, what: str, way_out: str) -> InvalidData:
    row = before + int(np.argmax(mask)) + 1
    return InvalidData(f"row {row:,}, column '{name[:100]}' {what}; {way_out}", row=row, column=name)


def _not_a_number(name: str, column: Any, wrong: npt.NDArray[np.bool_], before: int) -> InvalidData:
    cell = str(column[int(np.argmax(wrong))].as_py()).strip()
    if cells.DECIMAL_COMMA.fullmatch(cell) and not cells.THOUSANDS.fullmatch(cell):
        way_out = "it seems to use a decimal comma: write 1.5 and not 1,5"
    elif cells.THOUSANDS.fullmatch(cell):
        way_out = "it seems to have thousands separators or a decimal comma: write 1234.5"
    elif cells.DATE.fullmatch(cell):
        way_out = "it seems to be a date: leave the column out, or store a number of days"
    else:
        way_out = "correct it, empty it and give a 'fill', or make the column a category"
    return _at(wrong, before, name, "is not a number", way_out)
