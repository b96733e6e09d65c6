"""One pass over a source file: what each of its columns holds, in bounded memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipwise.data import cells
from clipwise.data.reading import Reader, SourceColumn

MOST_LABELS = 100
"""More different values than this, and a column is no category."""
MOST_ELEMENTS = 1000
"""Arrays with more values than this are taken as a whole."""
_SAMPLE = 20


@dataclass
class ColumnSurvey:
    """What one column holds.

    Attributes:
        empty: number of empty cells.
        blank: whether a cell is empty, for a column that can be a category.
        wrong: number of cells that are neither empty nor a number.
        first_wrong: row of the first of these, from 1.
        low, high: smallest and largest number.
        whole: whether every number is a whole one.
        counting: whether the numbers count up by one from row to row, as a row number does.
        labels: different values, as long as there are at most `MOST_LABELS`; None beyond.
        sample: some values that are no numbers, to recognise dates and decimal commas by.
    """

    source: SourceColumn
    rows: int = 0
    empty: int = 0
    blank: bool = False
    wrong: int = 0
    first_wrong: int | None = None
    low: float = np.inf
    high: float = -np.inf
    whole: bool = True
    counting: bool = True
    labels: set[str] | None = field(default_factory=set)
    sample: list[str] = field(default_factory=list)
    _last: float | None = None
    _lows: np.ndarray[Any, Any] | None = None
    _highs: np.ndarray[Any, Any] | None = None

    @property
    def name(self) -> str:
        """The column's name."""
        return self.source.name

    @property
    def is_number(self) -> bool:
        """Whether the column holds numbers, and nothing else but empty cells."""
        return self.source.kind in ("number", "truth", "text") and self.wrong == 0 and self.low <= self.high

    def add(self, column: Any) -> None:
        """Take the next rows of the column in."""
        if self.source.kind == "array":
            flat = column.flatten().to_numpy(zero_copy_only=False)
            self._add_range(flat)
            self._add_elements(flat.reshape(len(column), -1))
        elif self.source.kind != "moment":
            self._add_labels(column)
            # A column that was text in its first rows stays text: its cells need no second look.
            if not (self.rows and self.wrong > self.rows / 2):
                self._add_numbers(column)
        self.rows += len(column)

    def _add_labels(self, column: Any) -> None:
        if self.labels is None:
            return
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        head = pc.unique(values[: 10 * MOST_LABELS])
        unique = pc.unique(values) if len(head) <= 4 * MOST_LABELS else head
        names = set(cells.labels(unique).names)
        known = {name for name in names if not cells.is_empty_word(name)}
        self.blank = self.blank or known < names or column.null_count > 0
        self.labels |= known
        if len(self.labels) > MOST_LABELS:
            self.labels = None

    def _add_numbers(self, column: Any) -> None:
        found = cells.numbers(column)
        self.empty += int(found.empty.sum())
        if found.wrong.any():
            places = np.flatnonzero(found.wrong)
            if self.first_wrong is None:
                self.first_wrong = self.rows + int(places[0]) + 1
            self.wrong += len(places)
            room = _SAMPLE - len(self.sample)
            self.sample += [str(column[int(place)].as_py()).strip() for place in places[:room]]
        self._add_range(found.values)
        self._add_counting(found.values)

    def _add_range(self, values: np.ndarray[Any, Any]) -> None:
        known = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
        if known.size:
            self.low = min(self.low, float(known.min()))
            self.high = max(self.high, float(known.max()))
            self.whole = self.whole and bool(values.dtype.kind in "iu" or (known == np.floor(known)).all())

    def _add_elements(self, values: np.ndarray[Any, Any]) -> None:
        if values.shape[1] > MOST_ELEMENTS:
            return
        finite = np.isfinite(values)
        low = np.where(finite, values, np.inf).min(axis=0)
        high = np.where(finite, values, -np.inf).max(axis=0)
        self._lows = low if self._lows is None else np.minimum(self._lows, low)
        self._highs = high if self._highs is None else np.maximum(self._highs, high)

    def element_bounds(self) -> list[tuple[float, float]]:
        """Return the smallest and largest value of each place of an array column, up to `MOST_ELEMENTS`."""
        if self._lows is None or self._highs is None:
            return []
        pairs = zip(self._lows.tolist(), self._highs.tolist(), strict=True)
        return [(low, high) if low <= high else (0.0, 1.0) for low, high in pairs]

    def _add_counting(self, values: np.ndarray[Any, Any]) -> None:
        if self.counting:
            joined = values if self._last is None else np.concatenate([[self._last], values])
            self.counting = bool((np.diff(joined) == 1).all())
            self._last = float(values[-1]) if len(values) else self._last

    def looks_like(self, pattern: Any) -> bool:
        """Return whether every sampled value that is no number matches a pattern."""
        return bool(self.sample) and all(pattern.fullmatch(value) for value in self.sample)


def survey(reader: Reader) -> tuple[Sequence[ColumnSurvey], int]:
    """Return what each column of a file holds, and the number of rows."""
    columns = [ColumnSurvey(source=column) for column in reader.columns]
    rows = 0
    for batch in reader.batches([column.name for column in reader.columns]):
        for place, column in enumerate(columns):
            column.add(batch.column(place))
        rows += batch.num_rows
    return columns, rows
