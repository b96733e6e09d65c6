"""CSV and its relatives: any usual encoding and separator, streamed as text."""

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pyarrow import csv

from clipwise.data.reading.source import Format, Reader, SourceColumn, check_names, refused
from clipwise.errors import InvalidData

# pyarrow reads up to 32 blocks ahead: 128 MB.
_BLOCK = 4 * 2**20
_HEAD = 256 * 2**10
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}


class CsvReader(Reader):
    """A text file with one row per line, its first row the column names.

    Encoding: UTF-8, UTF-16 with a byte-order mark, else Windows-1252 or Latin-1 with a note. Separator:
    comma, semicolon, tab or vertical bar, whichever divides the first rows evenly. Cells may be quoted
    and then hold separators and line ends. Every cell is text here; the schema says what it means.

    Raises:
        InvalidData: if the file is empty, no text, or its header cannot be used.
    """

    format: ClassVar[Format] = "csv"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encoding = _encoding(path)
        head = _head(path, self._encoding)
        self._separator = _separator(head)
        self.notes = self._describe()
        names = self._header()
        check_names(names)
        self.columns = tuple(SourceColumn(name=name, kind="text") for name in names)

    def _describe(self) -> tuple[str, ...]:
        notes = []
        if self._encoding in ("cp1252", "latin-1"):
            known = "Windows-1252" if self._encoding == "cp1252" else "Latin-1"
            notes.append(
                f"The file is not UTF-8 and was read as {known}; "
                "if letters look wrong, save it as UTF-8 and upload it again."
            )
        if self._separator != ",":
            notes.append(f"Cells are separated by {SEPARATORS[self._separator]}s.")
        return tuple(notes)

    def _header(self) -> list[str]:
        try:
            with refused("the first row cannot be read"), self._open(None, lambda _row: "skip") as reader:
                first = next((batch for batch in reader if batch.num_rows), None)
                names = [] if first is None else [str(column[0].as_py() or "") for column in first.columns]
        except InvalidData as error:
            if "Empty CSV" in str(error.__cause__):
                raise InvalidData("the file needs a first row with column names, and rows below it") from None
            raise
        if names and names[0].lower().startswith("sep="):
            raise InvalidData(
                "the first row is a remark for Excel ('sep='); remove it, so that the column names come first"
            )
        if len(names) < 2:
            raise InvalidData(
                "the first row names only one column; separate cells by commas, semicolons, tabs or '|', "
                "and give a feature and a target column"
            )
        return [name.strip() for name in names]

    def _open(self, names: Sequence[str] | None, on_ragged: Callable[[Any], str]) -> Any:
        """Open the stream; the header is its first row: names may repeat, and quotes may span lines."""
        every = [] if names is None else [f"f{place}" for place in range(len(self.columns))]
        wanted = [] if names is None else [f"f{self._place(name)}" for name in names]
        return csv.open_csv(
            str(self._path),
            read_options=csv.ReadOptions(
                use_threads=False,  # with threads a broken row has no number
                block_size=_BLOCK,
                autogenerate_column_names=True,
                encoding=self._encoding,
            ),
            parse_options=csv.ParseOptions(
                delimiter=self._separator, newlines_in_values=True, invalid_row_handler=on_ragged
            ),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.string() for name in every},
                include_columns=wanted,
                strings_can_be_null=False,
            ),
        )

    def _place(self, name: str) -> int:
        return next(place for place, column in enumerate(self.columns) if column.name == name)

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        """Read the rows as text."""
        ragged = _Ragged()
        rows = 0
        header = True
        try:
            with refused("the file cannot be read as CSV"), self._open(names, ragged) as reader:
                for batch in reader:
                    data = batch.slice(1) if header and batch.num_rows else batch
                    header = header and not batch.num_rows
                    rows += data.num_rows
                    if data.num_rows:
                        yield data.rename_columns(list(names))
        except InvalidData as error:
            if ragged.row is not None:
                raise ragged.error() from error.__cause__
            if "straddling" in str(error.__cause__):
                raise InvalidData(
                    f"after row {rows:,} one row is longer than {_BLOCK // 2**20} MB: "
                    "probably a quotation mark that is opened and never closed",
                    row=rows + 1,
                ) from None
            raise


class _Ragged:
    """Remembers the first row whose number of cells is wrong; its text is never kept."""

    def __init__(self) -> None:
        self.row: int | None = None
        self.expected = self.actual = 0

    def __call__(self, row: Any) -> str:
        self.row = (row.number or 1) - 1
        self.expected, self.actual = row.expected_columns, row.actual_columns
        return "error"

    def error(self) -> InvalidData:
        return InvalidData(
            f"row {self.row:,} has {self.actual} cells where the first row names {self.expected} columns; "
            "put cells that hold the separator or a line end in quotation marks, and close every quotation",
            row=self.row,
        )


def _encoding(path: Path) -> str:
    """Return a codec that reads the whole file.

    Raises:
        InvalidData: if the file is empty, or no text.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise InvalidData("the file is empty; give a first row with column names, and rows below it")
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise InvalidData("the file is UTF-32; save it as UTF-8")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        if _reads(path, "utf-16"):
            return "utf-16"
        raise InvalidData("the file begins as UTF-16 and is damaged or cut short; save it as UTF-8")
    if (place := _null_byte(path)) is not None:
        raise InvalidData(
            f"byte {place:,} of the file is zero, which no text holds: is it another format, "
            "or UTF-16 without a byte-order mark? Save it as CSV in UTF-8"
        )
    return next(codec for codec in ("utf-8", "cp1252", "latin-1") if _reads(path, codec))


def _reads(path: Path, codec: str) -> bool:
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                if codec == "utf-16" and "\0" in decoder.decode(chunk):
                    raise InvalidData("the file holds zero characters; save it as CSV in UTF-8")
                if codec != "utf-16" and not (codec == "utf-8" and chunk.isascii()):
                    decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _null_byte(path: Path) -> int | None:
    offset = 0
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            if (place := chunk.find(0)) >= 0:
                return offset + place
            offset += len(chunk)
    return None


def _head(path: Path, encoding: str) -> str:
    with path.open("rb") as file:
        start = file.read(_HEAD)
    return codecs.getincrementaldecoder(encoding)(errors="ignore").decode(start).lstrip("\ufeff")


def _separator(head: str) -> str:
    """Return the separator that divides the first rows most evenly."""
    lines = [line for line in _QUOTED.sub("", head).splitlines() if line.strip()][:200]
    if not lines:
        return ","

    def evenness(separator: str) -> tuple[float, int]:
        counts = [line.count(separator) for line in lines]
        return (counts.count(counts[0]) / len(counts) if counts[0] else 0.0, counts[0])

    return max(SEPARATORS, key=evenness)
