"""An upload is in the store with its rows, or nothing of it is; random bytes never raise anything else."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from clipwise.artifacts import ArtifactStore, Stored
from clipwise.data.rows import RowFile
from clipwise.data.schema import DatasetSchema
from clipwise.data.uploads import DatasetIngestor
from clipwise.errors import InvalidData, InvalidSchema, TooLarge

CSV = b"a,b,label\n" + b"".join(b"%d.5,%d,%d\n" % (i, i % 7, i % 2) for i in range(100))


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(
        str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path.name}"
    )


def files(store: ArtifactStore) -> list[str]:
    return sorted(store._fs.find(store._root)) if store._fs.exists(store._root) else []


def test_upload_and_confirmation(store: ArtifactStore, tmp_path: Path) -> None:
    ingestor = DatasetIngestor(store)
    first = ingestor.ingest_upload(io.BytesIO(CSV), "ds_1", limit=len(CSV))
    assert (first.format, first.rows, first.size, first.confirmed) == ("csv", 100, len(CSV), False)
    assert first.schema.target == "label"
    assert any("origin" in note or "read off the rows" in note for note in first.notes)
    assert len(RowFile(store.local_path(first.rows_key, tmp_path / "into"))) == 100
    source = Stored(key=first.source_key, size=first.size, sha256=first.sha256)
    declared = DatasetSchema.model_validate(
        {**first.schema.as_json(), "features": [{"name": "a", "type": "number", "bounds": [0, 200]}]}
    )
    second = ingestor.reingest("ds_1", source, declared)
    assert second.confirmed
    assert second.rows_key != first.rows_key
    assert store.exists(first.rows_key)  # a job may be reading it
    ingestor.discard("ds_1")
    assert files(store) == []


def broken() -> Iterator[bytes]:
    yield CSV
    raise ConnectionResetError


def test_a_failed_upload_leaves_nothing(store: ArtifactStore) -> None:
    ingestor = DatasetIngestor(store)
    schema = ingestor.ingest_upload([CSV], "ds_kept").schema
    kept = files(store)
    wrong = schema.model_copy(update={"target": "nothing"})
    with pytest.raises(InvalidData):
        ingestor.ingest_upload([b"\0\0\0"], "ds_1")
    with pytest.raises(InvalidData):
        ingestor.ingest_upload([CSV + b"x,y,z\n"], "ds_1", schema=schema)
    with pytest.raises(InvalidSchema):
        ingestor.ingest_upload([CSV], "ds_1", schema=wrong)
    with pytest.raises(TooLarge):
        ingestor.ingest_upload([CSV], "ds_1", limit=10)
    with pytest.raises(ConnectionResetError):
        ingestor.ingest_upload(broken(), "ds_1")
    source = Stored(key="datasets/ds_kept/source", size=len(CSV), sha256="")
    with pytest.raises(InvalidData):
        ingestor.reingest("ds_kept", source, schema.model_copy(update={"classes": ("0", "7")}))
    assert files(store) == kept


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    columns = {"a": np.linspace(0, 1, 300), "s": ["x", "y", None] * 100, "y": np.arange(300) % 2}
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


SEEDS = [
    CSV,
    CSV.decode().encode("utf-16"),
    npz(x=np.random.default_rng(0).normal(size=(50, 3)), y=np.arange(50)),
    parquet(),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file with some bytes replaced, cut out or put in."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 20))
        content[place : place + length] = draw(st.binary(max_size=20))
    return (
        bytes(content[: draw(st.integers(1, len(content) or 1))]) if draw(st.booleans()) else bytes(content)
    )


def attempt(content: bytes, folder: Path) -> None:
    store = ArtifactStore(str(folder))
    refusal = None
    try:
        ingested = DatasetIngestor(store).ingest_upload([content], "ds_1")
    except (InvalidData, InvalidSchema) as error:
        refusal = error.detail
    if refusal is not None:
        assert len(refusal) > 10
    else:
        assert len(RowFile(store.local_path(ingested.rows_key, folder))) == ingested.rows
        DatasetIngestor(store).discard("ds_1")
    assert files(store) == []


quickly = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@quickly
@given(content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode())))
@example(content=b"PAR1")
@example(content=b"PAR1" + b"\xff" * 100 + b"PAR1")
@example(content=b"PK\x03\x04")
@example(content=b"\xff\xfe")
@example(content=b'a,b\n"')
def test_random_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    attempt(content, tmp_path_factory.mktemp("fuzz"))


@quickly
@given(content=damaged())
def test_damaged_files(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    attempt(content, tmp_path_factory.mktemp("fuzz"))


table_text = st.text(alphabet='ab1,.;"\n\r\t -e+NA0é', max_size=120)


@quickly
@given(header=st.sampled_from(["a,b", "a;b", "a,b,y"]), body=table_text)
def test_random_tables(header: str, body: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    attempt(f"{header}\n{body}".encode(), tmp_path_factory.mktemp("fuzz"))


def test_an_encrypted_zip(tmp_path: Path) -> None:
    content = bytearray(npz(x=np.zeros((3, 2)), y=np.arange(3)))
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        offsets = [info.header_offset for info in archive.infolist()]
    for offset in offsets:
        content[offset + 6] |= 1
    attempt(bytes(content), tmp_path)
