"""What a column's cells mean: numbers, labels, empty ones; a whole Arrow column at a time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

EMPTY_WORDS = (
    "",
    "-",
    "--",
    "?",
    "na",
    "n/a",
    "#n/a",
    "<na>",
    "nan",
    "nat",
    "null",
    "nil",
    "none",
    "missing",
)
"""What counts as an empty cell, in any case and with any spaces around."""
_INFINITE = ("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity")
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
THOUSANDS = re.compile(r"[+-]?\d{1,3}([,.' ]\d{3})+([.,]\d+)?")
DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ].*)?|\d{1,2}:\d{2}(:\d{2})?"
)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A column read as numbers; `values` is NaN where a cell is `empty` or `wrong` (no number)."""

    values: npt.NDArray[np.float64]
    empty: Mask
    wrong: Mask


def numbers(column: Any) -> Numbers:
    """Read a column of text, numbers or truth values as numbers. Infinite ones count as empty."""
    if pa.types.is_dictionary(column.type):
        uniques = numbers(column.dictionary)
        codes = pc.fill_null(column.indices, len(uniques.values)).to_numpy(zero_copy_only=False)
        return Numbers(
            values=np.append(uniques.values, np.nan)[codes],
            empty=np.append(uniques.empty, True)[codes],
            wrong=np.append(uniques.wrong, False)[codes],
        )
    if not pa.types.is_string(column.type):
        plain = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
        values = _as_float(plain.cast(pa.float64(), safe=False))
        return Numbers(values=values, empty=np.isnan(values), wrong=np.zeros(len(values), np.bool_))
    try:
        values = _as_float(column.cast(pa.float64()))
        return Numbers(values=values, empty=np.isnan(values), wrong=np.zeros(len(values), np.bool_))
    except pa.ArrowInvalid:
        return _untidy_numbers(column)


def _untidy_numbers(column: Any) -> Numbers:
    trimmed = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    numeric = pc.match_substring_regex(trimmed, _NUMBER)
    empty = pc.and_not(_is_word(trimmed, EMPTY_WORDS + _INFINITE), numeric)
    wrong = pc.and_not(pc.invert(numeric), empty)
    plain = pc.if_else(numeric, pc.utf8_ltrim(trimmed, "+"), None)
    values = _as_float(plain.cast(pa.float64()))
    wrong_mask = _as_mask(wrong)
    return Numbers(values=values, empty=np.isnan(values) & ~wrong_mask, wrong=wrong_mask)


def _is_word(trimmed: Any, words: tuple[str, ...]) -> Any:
    return pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(words))


def _as_float(column: Any) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = np.array(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    values[np.isinf(values)] = np.nan
    return values


def _as_mask(column: Any) -> Mask:
    mask: Mask = column.to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A column read as labels: row i has the label `names[codes[i]]`, or is empty where its code is -1."""

    names: tuple[str, ...]
    codes: npt.NDArray[np.int64]


def labels(column: Any) -> Labels:
    """Read a column as labels: spaces around are dropped, whole numbers lose their `.0`."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    values = encoded.dictionary
    if pa.types.is_string(values.type):
        names = pc.utf8_trim_whitespace(pc.fill_null(values, "")).to_pylist()
    elif pa.types.is_floating(values.type):
        names = [_number_name(value) for value in values.to_pylist()]
    else:
        names = [str(value).lower() for value in values.to_pylist()]
    return Labels(names=tuple(names), codes=codes)


def _number_name(value: float | None) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if value == int(value) else repr(value)


def is_empty_word(name: str) -> bool:
    """Return whether a label stands for an empty cell."""
    return name.strip().lower() in EMPTY_WORDS


def plain_name(name: str) -> str:
    """Return a label as it is compared when it is not found as it stands: `1.0` and `01` are `1`."""
    try:
        value = float(name)
    except ValueError:
        return name
    return str(int(value)) if abs(value) < 2**53 and value == int(value) else name


def codes_of(found: Labels, places: Mapping[str, int]) -> tuple[npt.NDArray[np.int64], Mask]:
    """Return each row's place in a list of labels, -1 where it has none, and which rows are empty.

    Args:
        found: the column.
        places: label to place, as `label_places` makes it.
    """
    table = np.full(len(found.names) + 1, -1, np.int64)
    empty = np.zeros(len(found.names) + 1, np.bool_)
    empty[-1] = True
    for at, name in enumerate(found.names):
        place = places.get(name)
        if place is None:
            place = places.get(plain_name(name), -1)
        table[at] = place
        empty[at] = place < 0 and is_empty_word(name)
    return table[found.codes], empty[found.codes]


def label_places(listed: tuple[str, ...]) -> dict[str, int]:
    """Return label to place; numbers are found in any spelling, as long as that is not ambiguous."""
    places = {plain_name(name): place for place, name in enumerate(listed)}
    if len(places) < len(listed):
        places = {}
    return {**places, **{name: place for place, name in enumerate(listed)}}
