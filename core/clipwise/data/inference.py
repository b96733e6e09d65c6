"""A schema proposed from a file's rows, for its owner to confirm or replace.

Everything that is read off the rows has the origin `from_rows`, and so stands outside of a privacy
guarantee until the owner declares it. The notes say what was decided and what to check.
"""

import re
from collections.abc import Sequence

import numpy as np

from clipwise.data import cells
from clipwise.data.reading import Reader
from clipwise.data.schema import (
    ArrayFeature,
    CategoryFeature,
    DatasetSchema,
    Feature,
    ImageFeature,
    NumberFeature,
    Origin,
    Size,
    Task,
)
from clipwise.data.survey import MOST_ELEMENTS, MOST_LABELS, ColumnSurvey, survey
from clipwise.errors import InvalidData, InvalidSchema, Problem

TARGET_NAMES = ("target", "label", "labels", "class", "y", "outcome", "targets")
_IDENTIFIER = re.compile(
    r"(.*[_\s.-])?(id|uuid|guid|index|key|rownames|ssn|mrn)|unnamed: \d+|.*[a-z]I[dD]", re.IGNORECASE
)
_NUMBER = re.compile(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?")
_MOST_CLASSES_OF_NUMBERS = 20
_CHANNELS = (1, 3, 4)
_DARK = 64
"""Bytes that stay below this use a small part of their range."""


def propose_schema(reader: Reader, target: str | None = None) -> tuple[DatasetSchema, tuple[str, ...]]:
    """Read a file once and propose its schema, with notes for its owner.

    Args:
        reader: the file.
        target: the column to predict; guessed by its name if None, else the last column.

    Raises:
        InvalidData: if no schema can be proposed; the message says what to do.
        InvalidSchema: if there is no column `target`.
    """
    columns, rows = survey(reader)
    if rows == 0:
        raise InvalidData("the file has no rows below its column names; add rows and upload it again")
    if len(columns) < 2:
        raise InvalidData("the file has a single column; give at least one feature and a target")
    notes = list(reader.notes)
    if reader.format == "csv" and all(_NUMBER.fullmatch(column.name.strip()) for column in columns):
        notes.append(
            "Every column name is a number: the first line of the file was taken for the names. If it is a "
            "row, put a line of names above it and upload the file again."
        )
    chosen = _target(columns, target, notes)
    task, classes, bounds = _task(chosen, rows, notes)
    features: list[Feature] = []
    for column in columns:
        if column is not chosen:
            features += _features(column, rows, notes)
    if not features:
        raise InvalidData(
            f"no column beside the target '{chosen.name}' can be a feature: " + " ".join(notes[-5:])
        )
    notes.append(
        f"Bounds, categories, classes and the number of rows ({rows:,}) were read off the rows: outside of a "
        "privacy guarantee, until you put public knowledge in their place and declare it."
    )
    schema = DatasetSchema(
        features=tuple(features),
        target=chosen.name,
        task=task,
        classes=classes,
        classes_origin="from_rows",
        target_bounds=bounds,
        target_origin="from_rows",
        size=Size(value=rows, origin="from_rows"),
    )
    return schema, tuple(notes)


def _target(columns: Sequence[ColumnSurvey], wanted: str | None, notes: list[str]) -> ColumnSurvey:
    if wanted is not None:
        found = next((column for column in columns if column.name == wanted), None)
        if found is None:
            known = ", ".join(f"'{column.name[:60]}'" for column in columns[:30])
            detail = f"the file has no column '{wanted[:100]}'; it has {known}"
            raise InvalidSchema(detail, (Problem(pointer="/target", detail=detail, code="does_not_fit"),))
        return found
    single = [column for column in columns if column.source.kind != "array"]
    if not single:
        raise InvalidData(
            "the file has no target: add a one-dimensional array 'y' with one class or number for each row"
        )
    named = [c for name in TARGET_NAMES for c in single if c.name.lower() == name]
    found = named[0] if named else single[-1]
    why = "by its name" if named else "because it is the last column"
    notes.append(f"'{found.name}' was taken as the target {why}.")
    return found


def _task(
    column: ColumnSurvey, rows: int, notes: list[str]
) -> tuple[Task, tuple[str, ...] | None, tuple[float, float] | None]:
    """Return the task with its classes or its bounds."""
    name, labels = column.name, column.labels
    if column.source.kind in ("array", "moment"):
        raise InvalidData(
            f"the target '{name}' holds {column.source.kind}s; give one class or number for each row",
            column=name,
        )
    few = labels is not None and len(labels) <= _MOST_CLASSES_OF_NUMBERS and len(labels) <= max(2, rows / 2)
    if column.is_number and not (few and column.whole):
        notes.append(f"'{name}' holds numbers: the task is a regression.")
        return "regression", None, _widened(column.low, column.high)
    if labels is None:
        raise InvalidData(
            f"the target '{name}' has more than {MOST_LABELS} different texts{_advice(column)}; "
            "name another target column in the schema",
            column=name,
        )
    if len(labels) < 2:
        raise InvalidData(
            f"the target '{name}' holds a single value; name another target column in the schema",
            column=name,
        )
    classes = _ordered({cells.plain_name(label) for label in labels} if column.is_number else labels)
    notes.append(f"'{name}' has {len(classes)} different values: the task is a classification.")
    return "classification", classes, None


def _features(column: ColumnSurvey, rows: int, notes: list[str]) -> list[Feature]:
    """Return the features that a column gives; a note says why where it gives none."""
    if column.source.kind == "array":
        return _array_features(column, notes)
    reason = _left_out(column, rows)
    if reason is not None:
        notes.append(f"'{column.name}' was left out: {reason}.")
        return []
    if column.is_number:
        return [_number(column, rows, notes)]
    labels = column.labels or set()
    if column.wrong and column.low <= column.high:
        notes.append(f"'{column.name}' mixes numbers and words and was taken as a category.")
    categories = _ordered(labels)
    fill = None
    if column.blank:
        fill = next(word for word in ("missing", "(missing)", "(empty cell)") if word not in labels)
        categories = (*categories, fill)
        notes.append(f"Empty cells of '{column.name}' become the category '{fill}'.")
    return [CategoryFeature(name=column.name, categories=categories, origin="from_rows", fill=fill)]


def _left_out(column: ColumnSurvey, rows: int) -> str | None:
    """Return why a column is no feature, or None if it is one."""
    name = column.name
    if column.source.kind == "moment" or column.looks_like(cells.DATE):
        return "it holds dates or times; store a number of days or hours if it matters"
    if column.labels is not None and not column.labels:
        return "all of its cells are empty"
    if column.is_number:
        if column.counting and rows > 2:
            return "it only counts the rows"
        if _IDENTIFIER.fullmatch(name) and column.labels is None and column.whole:
            return "it looks like an identifier; if it says whose row it is, name it as 'unit.column'"
        return None
    if column.labels is None:
        share = f"{column.wrong:,} cells are no numbers, first in row {column.first_wrong:,}"
        if column.low <= column.high and not _advice(column):
            return f"{share}, and it has too many values for a category; correct or empty these cells"
        way_out = _advice(column) or "; write plain numbers, such as 12.5, if that is what it holds"
        return f"it has more than {MOST_LABELS} different texts{way_out}"
    if column.looks_like(cells.DECIMAL_COMMA):
        return f"it holds texts{_advice(column)}"
    if len(column.labels) > max(2, rows / 2):
        return "nearly every row has a text of its own"
    return None


def _advice(column: ColumnSurvey) -> str:
    if column.looks_like(cells.DECIMAL_COMMA) or column.looks_like(cells.THOUSANDS):
        return ", numbers with a decimal comma or thousands separators: write 1234.5 and upload it again"
    return ""


def _number(column: ColumnSurvey, rows: int, notes: list[str]) -> NumberFeature:
    bounds = _widened(column.low, column.high)
    fill = None
    if column.empty:
        fill = bounds[0] / 2 + bounds[1] / 2
        notes.append(
            f"{column.empty:,} of {rows:,} cells of '{column.name}' are empty and become {fill:g}, "
            "the middle of its bounds."
        )
    if column.low == column.high:
        notes.append(f"'{column.name}' is the same in every row; remove it if that is no accident.")
    return NumberFeature(name=column.name, bounds=bounds, origin="from_rows", fill=fill)


def _array_features(column: ColumnSurvey, notes: list[str]) -> list[Feature]:
    name, shape = column.name, column.source.shape
    bounds: tuple[float, float]
    origin: Origin = "from_rows"
    if not column.low <= column.high:
        notes.append(f"'{name}' was left out: it holds no finite number.")
        return []
    bounds = _widened(column.low, column.high)
    if column.source.byte_sized and column.high > 1:
        bounds, origin = (0.0, 255.0), "declared"
        if column.high < _DARK:
            notes.append(
                f"'{name}' holds bytes, so its bounds are 0 to 255, and its largest value is "
                f"{column.high:g}: give narrower bounds if its values cannot be larger, or a model learns "
                "slowly."
            )
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in _CHANNELS):
        image = (shape[0], shape[1], shape[2] if len(shape) == 3 else 1)
        notes.append(f"'{name}' was taken as images of height, width, channels {list(image)}.")
        return [ImageFeature(name=name, shape=image, bounds=bounds, origin=origin)]
    if len(shape) == 3 and shape[0] in _CHANNELS:
        notes.append(
            f"'{name}' looks like images with the channels first and was taken as a flat array; "
            "for images, move the channels last: x.transpose(0, 2, 3, 1)."
        )
    if len(shape) == 1 and shape[0] <= MOST_ELEMENTS and origin == "from_rows":
        # One range for all columns of a table would squeeze most of them into nothing.
        notes.append(f"'{name}' was taken as {shape[0]} numbers, '{name}[0]' to '{name}[{shape[0] - 1}]'.")
        return [
            NumberFeature(name=f"{name}[{place}]", bounds=_widened(low, high), origin="from_rows")
            for place, (low, high) in enumerate(column.element_bounds())
        ]
    return [ArrayFeature(name=name, shape=shape, bounds=bounds, origin=origin)]


def _ordered(labels: set[str]) -> tuple[str, ...]:
    """Return labels sorted, as numbers where all of them are."""
    try:
        return tuple(sorted(labels, key=lambda label: (float(label), label)))
    except ValueError:
        return tuple(sorted(labels))


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return bounds with the first below the second, whatever the magnitude."""
    if low < high:
        return (low, high)
    pad = max(0.5, abs(low) * 1e-6)
    limit = float(np.finfo(np.float64).max)
    return (max(low - pad, -limit), min(high + pad, limit))
