"""Reading source files: one reader per format, found by a file's content and not by its name."""

from collections.abc import Mapping
from pathlib import Path

from clipwise.data.reading.csv import CsvReader
from clipwise.data.reading.npz import NpzReader
from clipwise.data.reading.parquet import ParquetReader
from clipwise.data.reading.source import Format, Reader, SourceColumn
from clipwise.errors import InvalidData

READERS: Mapping[Format, type[CsvReader] | type[ParquetReader] | type[NpzReader]] = {
    "csv": CsvReader,
    "parquet": ParquetReader,
    "npz": NpzReader,
}
_MAGIC: Mapping[bytes, Format] = {b"PAR1": "parquet", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz"}
_REFUSED: Mapping[bytes, str] = {
    b"\x93NUMPY": "a single NumPy array; save features and target by numpy.savez(path, x=..., y=...)",
    b"\x1f\x8b": "compressed by gzip; unpack it and upload what is inside",
    b"BZh": "compressed by bzip2; unpack it and upload what is inside",
    b"\xfd7zXZ": "compressed by xz; unpack it and upload what is inside",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it and upload what is inside",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV",
    b"%PDF": "a PDF document; export the table as CSV",
    b"\x89HDF": "an HDF5 file; save its arrays by numpy.savez(path, x=..., y=...)",
    b"ARROW1": "an Arrow file; save it as Parquet",
    b"\x80\x04\x95": "a pickle, which is never opened; save the table as CSV, Parquet or NPZ",
    b"\x80\x05\x95": "a pickle, which is never opened; save the table as CSV, Parquet or NPZ",
}


def open_source(path: Path) -> Reader:
    """Open a source file of any format.

    Raises:
        InvalidData: if it is of no format that can be read, or its head is damaged.
    """
    with path.open("rb") as file:
        head = file.read(16)
    for magic, reason in _REFUSED.items():
        if head.startswith(magic):
            raise InvalidData(f"the file is {reason}")
    found: Format = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "csv")
    return READERS[found](path)


__all__ = [
    "READERS",
    "CsvReader",
    "Format",
    "NpzReader",
    "ParquetReader",
    "Reader",
    "SourceColumn",
    "open_source",
]
