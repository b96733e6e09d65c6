"""What every reader gives: the columns of a file, and its rows in batches of bounded size."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from clipwise.errors import ClipwiseError, InvalidData

Format = Literal["csv", "parquet", "npz"]
Kind = Literal["text", "number", "truth", "moment", "array"]
MOST_COLUMNS = 10_000


@dataclass(frozen=True, kw_only=True)
class SourceColumn:
    """A column of a file.

    Attributes:
        name: as the file calls it.
        kind: what its cells are.
        shape: of one cell of an array column; empty for the others.
        byte_sized: whether every value fits into uint8.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...] = ()
    byte_sized: bool = False


class Reader(ABC):
    """A file that can be read from its beginning as often as needed.

    `batches` gives Arrow record batches with the wanted columns: text as string or dictionary of string,
    numbers and truth values as they are, arrays flattened to a fixed-size list of numbers.

    Attributes:
        columns: the file's columns, in its order.
        notes: what the user should know about how the file is read.
    """

    format: ClassVar[Format]
    columns: tuple[SourceColumn, ...]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        """Read the rows, with these columns only.

        Raises:
            InvalidData: if the file is broken; with its row where that is known.
        """


def check_names(names: Sequence[str]) -> None:
    """Check a file's column names.

    Raises:
        InvalidData: if there are too many, one is empty, or one stands twice.
    """
    if len(names) > MOST_COLUMNS:
        raise InvalidData(
            f"the file has {len(names):,} columns and the most is {MOST_COLUMNS:,}; "
            "put them into one array column (Parquet fixed-size list, or NPZ)"
        )
    seen: set[str] = set()
    for place, name in enumerate(names, 1):
        if not name.strip():
            hint = ""
            if place == 1:
                hint = " (an index that pandas wrote? use to_csv(index=False))"
            elif place == len(names):
                hint = " (a separator at the end of each row? remove it)"
            raise InvalidData(f"column {place} has no name{hint}; give every column a name in the first row")
        if name in seen:
            raise InvalidData(f"two columns are called '{name[:100]}'; rename one of them", column=name)
        seen.add(name)


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn whatever a library raises over a broken file into `InvalidData`, without its text.

    The libraries quote the file in their messages, and a file's rows can be private. What they raise is
    open-ended (zlib, struct, tokenize and more, by the way in which a file is broken).
    """
    try:
        yield
    except ClipwiseError:
        raise
    except MemoryError as error:
        raise InvalidData(f"{what}: it asks for more memory than there is") from error
    except Exception as error:
        raise InvalidData(f"{what}; it is damaged or cut short, write it again") from error
