import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import select

from clipwise.data.uploads import DatasetIngestor
from clipwise.store import orphans
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import DatasetRow, OrphanFileRow, PopulationRow
from tests.api.conftest import CSV, JOB, SCHEMA, Api

MODEL = {"kind": "logistic"}


def upload(client: httpx.Client, content: bytes | str = CSV, **fields: Any) -> httpx.Response:
    data = {"name": "people", **fields}
    data = {k: json.dumps(v) if isinstance(v, dict) else str(v) for k, v in data.items() if v is not None}
    body = content.encode() if isinstance(content, str) else content
    return client.post("/v1/datasets", data=data, files={"file": ("people.csv", body)})


def files_of(api: Api) -> list[Path]:
    """Return every file and empty folder in the artifact store, but for the store's own folder."""
    root = api.services.settings.data_dir / "artifacts"
    found = [path for path in root.rglob("*") if path.is_file() or not any(path.iterdir())]
    return [path for path in found if path.name != ".incoming"]


def rows_of(api: Api) -> dict[str, int]:
    with reading(api.services.engine) as session:
        return {
            "datasets": len(session.scalars(select(DatasetRow).where(DatasetRow.source == "upload")).all()),
            "populations": len(session.scalars(select(PopulationRow)).all()),
            "orphans": len(session.scalars(select(OrphanFileRow)).all()),
        }


def assert_nothing_left(api: Api) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = files_of(api)
        if not left and rows_of(api) == {"datasets": 0, "populations": 1, "orphans": 0}:
            return
        time.sleep(0.1)
    raise AssertionError((left, rows_of(api)))


def test_an_upload_with_a_schema_is_ready_and_can_be_trained_on(api: Api, owner: httpx.Client) -> None:
    made = upload(owner, schema=SCHEMA, visibility="public")
    assert made.status_code == 201, made.text
    dataset = made.json()
    assert made.headers["Location"] == f"/v1/datasets/{dataset['id']}"
    assert dataset["status"] == "ready"
    assert (dataset["rows"], dataset["size_bytes"], dataset["format"]) == (40, len(CSV), "csv")
    assert dataset["schema"]["features"][0]["bounds"] == [0.0, 120.0]
    assert dataset["population"]["visibility"] == "public"
    assert owner.get(f"/v1/datasets/{dataset['id']}").json() == dataset
    assert owner.get("/v1/datasets/people").json() == dataset
    job = owner.post("/v1/jobs", json={**JOB, "dataset": "people", "model": MODEL})
    assert job.status_code == 201, job.text
    assert job.json()["dataset_id"] == dataset["id"]
    in_use = owner.delete(f"/v1/datasets/{dataset['id']}")
    assert in_use.status_code == 409
    assert job.json()["id"] in in_use.json()["detail"]
    owner.post(f"/v1/jobs/{job.json()['id']}/cancel")
    assert owner.delete(f"/v1/datasets/{dataset['id']}").status_code == 200
    assert owner.get(f"/v1/datasets/{dataset['id']}").status_code == 404
    assert owner.get(f"/v1/jobs/{job.json()['id']}").status_code == 200
    deadline = time.monotonic() + 12
    while files_of(api) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert files_of(api) == []
    assert upload(owner, schema=SCHEMA, visibility="public").status_code == 201  # the name is free again


def test_a_proposal_waits_for_its_owner(owner: httpx.Client) -> None:
    made = upload(owner)
    assert made.status_code == 201, made.text
    dataset = made.json()
    assert dataset["status"] == "proposed"
    assert dataset["population"]["visibility"] == "private"
    assert "how many rows one person may own" in dataset["notes"][-1]
    refused = owner.post("/v1/jobs", json={**JOB, "dataset": "people", "model": MODEL})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["code"] == "unconfirmed_schema"
    url = f"/v1/datasets/{dataset['id']}"
    silent = {name: value for name, value in dataset["schema"].items() if name != "unit"}
    unanswered = owner.put(f"{url}/schema", json=silent)
    assert unanswered.status_code == 422
    assert unanswered.json()["errors"][0]["pointer"] == "/unit"
    stale = owner.put(f"{url}/schema", json=dataset["schema"], headers={"If-Match": '"other"'})
    assert stale.status_code == 412
    tag = owner.get(url).headers["ETag"]
    confirmed = owner.put(f"{url}/schema", json=dataset["schema"], headers={"If-Match": tag})
    assert confirmed.status_code == 200, confirmed.text
    assert confirmed.json()["status"] == "ready"
    assert owner.get(url, headers={"If-None-Match": tag}).status_code == 200
    job = owner.post("/v1/jobs", json={**JOB, "dataset": "people", "model": MODEL})
    assert job.status_code == 201, job.text


def test_a_schema_confirmed_as_it_is_keeps_the_rows(api: Api, owner: httpx.Client) -> None:
    dataset = upload(owner).json()
    before = set(files_of(api))
    assert len(before) == 2  # the file, and its rows
    for _ in range(2):
        assert owner.put(f"/v1/datasets/{dataset['id']}/schema", json=dataset["schema"]).status_code == 200
        assert rows_of(api)["orphans"] == 0
        api.services.artifacts.sweep()
        orphans.sweep(api.services.engine, api.services.artifacts.delete)
    assert set(files_of(api)) == before


def test_a_replaced_schema_reads_the_file_again(api: Api, owner: httpx.Client) -> None:
    dataset = upload(owner, visibility="public").json()
    before = set(files_of(api))
    replaced = owner.put(f"/v1/datasets/{dataset['id']}/schema", json=SCHEMA)
    assert replaced.status_code == 200, replaced.text
    assert replaced.json()["schema"]["features"][0]["origin"] == "declared"
    wrong = {**SCHEMA, "features": [{"name": "nowhere", "type": "number", "bounds": [0, 1]}]}
    refused = owner.put(f"/v1/datasets/{dataset['id']}/schema", json=wrong)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/features/0/name"
    assert owner.get(f"/v1/datasets/{dataset['id']}").json() == replaced.json()
    deadline = time.monotonic() + 12
    while len(set(files_of(api))) > len(before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(files_of(api)) == len(before)  # the rows that were made first are gone
    builtin = owner.put("/v1/datasets/digits/schema", json=SCHEMA)
    assert builtin.status_code == 409
    assert owner.delete("/v1/datasets/digits").status_code == 409


def test_a_process_that_dies_while_it_reads_a_file_again_leaves_nothing_for_ever(
    api: Api, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = upload(owner, visibility="public").json()
    before = rows_of(api)["orphans"]
    noted: list[int] = []
    reingest = DatasetIngestor.reingest

    def watched(*arguments: Any, **named: Any) -> Any:
        noted.append(rows_of(api)["orphans"] - before)
        return reingest(*arguments, **named)

    monkeypatch.setattr(DatasetIngestor, "reingest", watched)
    changed = {**dataset["schema"], "classes": list(reversed(dataset["schema"]["classes"]))}
    assert owner.put(f"/v1/datasets/{dataset['id']}/schema", json=changed).status_code == 200
    assert noted == [1], "the new file is on the list before it is written"
    orphans.sweep(api.services.engine, api.services.artifacts.delete)
    assert rows_of(api)["orphans"] == before
    assert len(files_of(api)) == 2, "the file and its new rows are kept, the old rows are gone"


def test_registering_private_data_asks_who_may_own_several_rows(owner: httpx.Client) -> None:
    asked = upload(owner, visibility="private")
    assert asked.status_code == 422
    assert asked.json()["errors"][0]["pointer"] == "/max_rows_per_person"
    answered = upload(owner, visibility="private", max_rows_per_person=3)
    assert answered.status_code == 201
    assert answered.json()["schema"]["unit"] == {"column": None, "max_rows": 3}
    assert not any("one person" in note for note in answered.json()["notes"])
    in_schema = upload(owner, name="other", visibility="private", schema=SCHEMA)
    assert in_schema.status_code == 201
    assert in_schema.json()["status"] == "ready"


def test_populations_are_joined_by_name_and_keep_their_visibility(owner: httpx.Client) -> None:
    first = upload(
        owner, name="v1", population="patients", visibility="private", max_rows_per_person=1
    ).json()
    second = upload(
        owner, name="v2", population="patients", visibility="private", max_rows_per_person=1
    ).json()
    assert first["population"] == second["population"]
    contradiction = upload(owner, name="v3", population="patients", visibility="public")
    assert contradiction.status_code == 409
    names = [p["name"] for p in owner.get("/v1/populations").json()["data"]]
    assert names == ["built-in data sets", "patients"]
    assert upload(owner, name="v1").status_code == 409


def test_an_upload_is_repeated_under_its_idempotency_key(api: Api, owner: httpx.Client) -> None:
    owner.headers["Idempotency-Key"] = "k"
    first = upload(owner, visibility="public")
    again = upload(owner, visibility="public")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert upload(owner, CSV + "9,f,1\n", visibility="public").json()["code"] == "idempotency_mismatch"
    assert rows_of(api)["datasets"] == 1


def test_other_formats(owner: httpx.Client) -> None:
    file = io.BytesIO()
    np.savez(file, x=np.zeros((30, 3)), y=np.arange(30) % 2)
    made = upload(owner, file.getvalue(), target="y", visibility="public")
    assert made.status_code == 201, made.text
    assert made.json()["format"] == "npz"
    assert made.json()["schema"]["target"] == "y"


def test_builtin_data_sets_are_there_once(api: Api, owner: httpx.Client) -> None:
    from clipwise.store import builtins

    builtins.seed(api.services.engine)
    listed = owner.get("/v1/datasets", params={"limit": 2}).json()
    assert listed["has_more"] is True
    rest = owner.get("/v1/datasets", params={"after": listed["next_cursor"]}).json()
    names = [dataset["name"] for dataset in listed["data"] + rest["data"]]
    assert sorted(names) == ["breast_cancer", "diabetes", "digits", "wine"]


FAILURES: dict[str, tuple[int, dict[str, Any]]] = {
    "no file": (422, {"data": {"name": "x"}, "files": {"other": (None, b"x")}}),
    "no name": (422, {"data": {}, "files": {"file": ("x", CSV.encode())}}),
    "nul in name": (422, {"data": {"name": "a\x00b"}, "files": {"file": ("x", CSV.encode())}}),
    "long name": (422, {"data": {"name": "x" * 201}, "files": {"file": ("x", CSV.encode())}}),
    "two files": (422, {"data": {"name": "x"}, "files": [("file", ("a", b"1")), ("file", ("b", b"2"))]}),
    "field twice": (422, {"data": {"name": ["x", "y"]}, "files": {"file": ("x", CSV.encode())}}),
    "unknown field": (422, {"data": {"name": "x", "colour": "red"}, "files": {"file": ("x", b"a\n1\n")}}),
    "schema no json": (422, {"data": {"name": "x", "schema": "{"}, "files": {"file": ("x", CSV.encode())}}),
    "schema wrong": (422, {"data": {"name": "x", "schema": "{}"}, "files": {"file": ("x", CSV.encode())}}),
    "schema nul": (
        422,
        {"data": {"name": "x", "schema": '["\\u0000"]'}, "files": {"file": ("x", b"a")}},
    ),
    "visibility": (422, {"data": {"name": "x", "visibility": "secret"}, "files": {"file": ("x", b"a")}}),
    "rows per person": (
        422,
        {"data": {"name": "x", "max_rows_per_person": "²"}, "files": {"file": ("x", CSV.encode())}},
    ),
    "rows per person, endless": (
        422,
        {
            "data": {"name": "x", "max_rows_per_person": "000000000001" + "9" * 5000},
            "files": {"file": ("x", CSV.encode())},
        },
    ),
    "rows per person, too many": (
        422,
        {
            "data": {"name": "x", "max_rows_per_person": "00000000000199999999999"},
            "files": {"file": ("x", CSV.encode())},
        },
    ),
    "rows per person, none": (
        422,
        {"data": {"name": "x", "max_rows_per_person": "0"}, "files": {"file": ("x", CSV.encode())}},
    ),
    "empty": (422, {"data": {"name": "x"}, "files": {"file": ("x", b"")}}),
    "header only": (422, {"data": {"name": "x"}, "files": {"file": ("x", b"a,b\n")}}),
    "binary": (422, {"data": {"name": "x"}, "files": {"file": ("x", bytes(range(256)) * 50)}}),
    "ragged": (422, {"data": {"name": "x"}, "files": {"file": ("x", b"a,b\n1,2\n1\n")}}),
    "broken npz": (422, {"data": {"name": "x"}, "files": {"file": ("x", b"PK\x03\x04broken")}}),
    "broken parquet": (422, {"data": {"name": "x"}, "files": {"file": ("x", b"PAR1broken")}}),
    "misfit": (
        422,
        {
            "data": {"name": "x", "schema": json.dumps(SCHEMA)},
            "files": {"file": ("x", b"age,sex,label\nold,f,0\n")},
        },
    ),
    "too large": (413, {"data": {"name": "x"}, "files": {"file": ("x", b"a,b\n" + b"1,2\n" * 300_000)}}),
    "field too large": (413, {"data": {"name": "x", "schema": "x" * 2**21}, "files": {"file": ("x", b"a")}}),
    "many parts": (422, {"data": {str(n): "x" for n in range(30)}, "files": {"file": ("x", b"a")}}),
    "json": (415, {"json": {"name": "x"}}),
    "not multipart": (415, {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}),
    "cut off": (
        400,
        {"content": b"--b\r\nContent-Disp", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
    ),
    "no end": (
        400,
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\na,b\n1,2\n',
            "headers": {"Content-Type": "multipart/form-data; boundary=b"},
        },
    ),
    "garbage": (
        400,
        {"content": b"\xff" * 1000, "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
    ),
    "latin field": (
        422,
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\r\n--b--\r\n',
            "headers": {"Content-Type": "multipart/form-data; boundary=b"},
        },
    ),
}


def test_what_cannot_be_read_is_an_error_and_leaves_nothing(api: Api, owner: httpx.Client) -> None:
    for name, (status, options) in FAILURES.items():
        answer = owner.post("/v1/datasets", **options)
        assert answer.status_code == status, (name, answer.text)
        assert answer.headers["content-type"] == "application/problem+json", name
    misfit = owner.post("/v1/datasets", **FAILURES["misfit"][1]).json()
    assert (misfit["row"], misfit["column"]) == (1, "age")
    assert "old" not in misfit["detail"].replace("threshold", "")
    assert_nothing_left(api)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("full", ["upload", "rows.arrow"])
def test_a_full_disk_is_503_and_leaves_nothing(
    api: Api, owner: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    @contextmanager
    def temporary_folder() -> Iterator[Path]:
        with TemporaryDirectory(dir=tmp_path) as name:
            folder = Path(name)
            (folder / full).symlink_to("/dev/full")  # where every write fails for want of space
            yield folder

    monkeypatch.setattr(api.services.artifacts, "temporary_folder", temporary_folder)
    answer = upload(owner, schema=SCHEMA)
    assert answer.status_code == 503, answer.text
    assert "full" in answer.json()["detail"]
    assert_nothing_left(api)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(api: Api) -> None:
    class Leaves(Exception):
        pass

    def body() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\na,b\n'
        for _ in range(200):
            yield b"1,2\n" * 500
        raise Leaves

    for _ in range(3):
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        with api.client() as client, pytest.raises(Leaves):
            client.post("/v1/datasets", content=body(), headers=headers)
    assert_nothing_left(api)


def test_an_upload_that_died_on_the_way_is_swept(api: Api) -> None:
    # What a killed process leaves: a reservation, and files without a row.
    store = api.services.artifacts
    store.write("datasets/ds_dead/source", [b"rows"])
    store.write("datasets/ds_dead/rows-1.arrow", [b"rows"])
    with transaction(api.services.engine) as session:
        orphans.add(session, ["datasets/ds_dead"])
    deadline = time.monotonic() + 12
    while store.exists("datasets/ds_dead/source") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not store.exists("datasets/ds_dead/source")
    assert not store.exists("datasets/ds_dead/rows-1.arrow")
    time.sleep(0.2)
    assert rows_of(api)["orphans"] == 0
