"""An upload's way into the artifact store: its source as it came, and its rows, or nothing at all."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from clipwise.artifacts import ArtifactStore, Stored
from clipwise.artifacts.failures import translated
from clipwise.data.inference import propose_schema
from clipwise.data.ingestion import ingest
from clipwise.data.reading import Format, open_source
from clipwise.data.schema import DatasetSchema


@dataclass(frozen=True, kw_only=True)
class IngestedDataset:
    """A data set in the artifact store.

    Attributes:
        source_key: the upload as it came.
        rows_key: the row file made from it; a new key each time, because jobs may be reading the last one.
        size: bytes of the upload.
        sha256: of the upload, in hexadecimal.
        rows: number of rows.
        format: of the upload, found by its content.
        schema: the given one, or a proposal.
        confirmed: whether the schema was given; a proposal waits for its owner's word.
        notes: what was decided about the file, and what to check.
    """

    source_key: str
    rows_key: str
    size: int
    sha256: str
    rows: int
    format: Format
    schema: DatasetSchema
    confirmed: bool
    notes: tuple[str, ...]


class DatasetIngestor:
    """Brings uploads into an artifact store; whatever fails leaves nothing of it behind."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts

    def ingest_upload(
        self,
        upload: IO[bytes] | Iterable[bytes],
        dataset_id: str,
        *,
        schema: DatasetSchema | None = None,
        target: str | None = None,
        limit: int | None = None,
    ) -> IngestedDataset:
        """Store an upload and its rows. Blocks: call it from a thread.

        Args:
            upload: a stream, or chunks of bytes.
            dataset_id: the new data set's id; its files are kept below it.
            schema: what the columns mean; proposed from the rows if None.
            target: the column to predict, for the proposal.
            limit: most bytes of the upload.

        Raises:
            TooLarge: over `limit`.
            InvalidData: if the file cannot be read, or a cell does not fit the schema.
            InvalidSchema: if the schema does not fit the file.
            Unavailable: if the artifact store is away or full.
        """
        with self._undone_on_failure(dataset_id):
            stored = self._artifacts.write(f"{folder_of(dataset_id)}/source", upload, limit)
            return self._ingest(stored, dataset_id, schema, target)

    def reingest(
        self, dataset_id: str, source: Stored, schema: DatasetSchema, *, rows_key: str | None = None
    ) -> IngestedDataset:
        """Make rows from a stored upload again, by another schema.

        The rows made before stay: delete their key when nothing names it any more.

        Args:
            dataset_id: the data set's id.
            source: the upload.
            schema: what the columns mean from now on.
            rows_key: where the rows go, one of `new_rows_key`, for a caller that notes it beforehand.

        Raises:
            InvalidData: if a cell does not fit the schema.
            InvalidSchema: if the schema does not fit the file.
            NotFound: if the upload is gone.
            Unavailable: if the artifact store is away or full.
        """
        return self._ingest(source, dataset_id, schema, None, rows_key)

    def discard(self, dataset_id: str) -> None:
        """Delete everything that a data set has in the store; nothing happens if that is nothing."""
        self._artifacts.delete_prefix(folder_of(dataset_id))

    def _ingest(
        self,
        source: Stored,
        dataset_id: str,
        schema: DatasetSchema | None,
        target: str | None,
        rows_key: str | None = None,
    ) -> IngestedDataset:
        with self._artifacts.temporary_folder() as folder:
            reader = open_source(self._artifacts.local_path(source.key, folder))
            notes = reader.notes
            chosen = schema
            if chosen is None:
                chosen, notes = propose_schema(reader, target)
            rows_path: Path = folder / "rows.arrow"
            try:
                result = ingest(reader, chosen, rows_path)
            except OSError:  # of the system: a full disk
                with translated("write"):
                    raise
            rows_key = rows_key or new_rows_key(dataset_id)
            self._artifacts.put_file(rows_key, rows_path, move=True)
        return IngestedDataset(
            source_key=source.key,
            rows_key=rows_key,
            size=source.size,
            sha256=source.sha256,
            rows=result.rows,
            format=reader.format,
            schema=chosen,
            confirmed=schema is not None,
            notes=(*notes, *result.notes),
        )

    @contextmanager
    def _undone_on_failure(self, dataset_id: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                self.discard(dataset_id)
            raise


def folder_of(dataset_id: str) -> str:
    """Return the prefix of all keys of a data set."""
    return f"datasets/{dataset_id}"


def new_rows_key(dataset_id: str) -> str:
    """Return a key that no row file of the data set has yet."""
    return f"{folder_of(dataset_id)}/rows-{uuid4().hex[:12]}.arrow"
