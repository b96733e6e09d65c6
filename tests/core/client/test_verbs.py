"""Verbs over a bad line: what is sent, and what becomes of an answer that was lost."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipwise.client import Client, DownloadFailed, RequestConflict
from clipwise.errors import InvalidSpec, NotFound
from tests.core.client.conftest import HANG_UP, Answer, Script, problem

JobDocument = Callable[..., dict[str, Any]]
CONTENT = b"weights" * 1000


@pytest.mark.parametrize(
    ("verb", "settled", "elsewhere"),
    [
        ("pause", "pausing", "succeeded"),
        ("resume", "running", "failed"),
        ("cancel", "cancelled", "succeeded"),
    ],
)
def test_a_verb_whose_answer_was_lost_is_done(
    server: Script, client: Client, job_document: JobDocument, verb: str, settled: str, elsewhere: str
) -> None:
    server.play(HANG_UP, problem(409), Answer(200, job_document(settled)))
    assert getattr(client, verb)("job_1").status == settled
    assert [(seen.method, seen.path) for seen in server.seen] == [
        ("POST", f"/v1/jobs/job_1/{verb}"),
        ("POST", f"/v1/jobs/job_1/{verb}"),
        ("GET", "/v1/jobs/job_1"),
    ]
    server.play(problem(409, allowed=["delete"]), Answer(200, job_document(elsewhere)))
    with pytest.raises(RequestConflict) as raised:
        getattr(client, verb)("job_1")
    assert raised.value.allowed == ("delete",)


def test_a_retry_and_a_clone_are_sent_again_under_one_key(
    server: Script, client: Client, job_document: JobDocument
) -> None:
    parent = {"id": "job_1", "verb": "clone"}
    for make in (
        lambda: client.retry("job_1"),
        lambda: client.clone("job_1", {"training": {"steps": None, "epochs": 3}}),
    ):
        server.play(HANG_UP, problem(503), Answer(201, job_document("queued", id="job_2", parent=parent)))
        made = make()
        assert made.parent is not None
        assert (made.id, made.parent.id) == ("job_2", "job_1")
        assert len(server.seen) == 3
        assert len({seen.headers["Idempotency-Key"] for seen in server.seen}) == 1
    assert json.loads(server.seen[0].body) == {"changes": {"training": {"steps": None, "epochs": 3}}}
    server.play(Answer(201, job_document()), Answer(200, job_document("succeeded")))
    assert client.retry("job_1", wait=True).status == "succeeded"
    with pytest.raises(InvalidSpec, match="JSON"):
        client.clone("job_1", {"training": {"steps": float("inf")}})


def result(changed: list[str], refused: list[str] = [], cursor: str | None = None) -> Answer:  # noqa: B006
    refusals = [{"id": job_id, "code": "conflict", "detail": "no"} for job_id in refused]
    more = {"has_more": cursor is not None, "next_cursor": cursor}
    return Answer(200, {"changed": changed, "refused": refusals, **more})


def test_a_bulk_change_goes_on_until_nothing_is_left(server: Script, client: Client) -> None:
    server.play(result(["a", "b"], cursor="c1"), HANG_UP, result([], ["c"], cursor="c2"), result(["d"]))
    done = client.bulk("cancel", status=["queued"], tags=["team:x"], created_by="me")
    assert (done.changed, [refusal.id for refusal in done.refused], done.has_more) == (
        ["a", "b", "d"], ["c"], False,
    )  # fmt: skip
    bodies = [json.loads(seen.body) for seen in server.seen]
    assert bodies[0] == {
        "verb": "cancel",
        "filter": {"status": ["queued"], "tag": ["team:x"], "created_by": "me"},
    }
    assert [body.get("after") for body in bodies] == [None, "c1", "c1", "c2"]
    keys = [seen.headers["Idempotency-Key"] for seen in server.seen]
    # One for each part: what is sent again is the same request, what comes next is another one.
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


def test_a_worker_is_drained(server: Script, client: Client) -> None:
    worker = {"id": "wrk_1", "host": "h", "queues": ["cpu"], "slots": 1, "kinds": [], "versions": {}}
    worker |= {"alive": True, "current_jobs": [], "started_at": "2026-01-01T00:00:00.000Z"}
    worker |= {"heartbeat_at": "2026-01-01T00:00:00.000Z"}
    server.play(Answer(200, {**worker, "draining": True}))
    assert client.drain("wrk_1").draining
    server.play(Answer(200, worker))
    assert not client.undrain("wrk_1").draining
    assert server.seen[0].path == "/v1/workers/wrk_1/undrain"


def checkpoints(sha256: str) -> Answer:
    data = [
        {"step": 40, "attempt": 2, "size": len(CONTENT), "sha256": sha256, "best": False},
        {"step": 40, "attempt": 1, "size": 3, "sha256": "0" * 64, "best": False},
        {"step": 20, "attempt": 1, "size": 3, "sha256": "0" * 64, "best": True},
    ]
    return Answer(200, {"data": [{**one, "created_at": "2026-01-01T00:00:00.000Z"} for one in data]})


def test_a_checkpoint_arrives_whole_or_not_at_all(server: Script, client: Client, tmp_path: Path) -> None:
    # Of two attempts that wrote one of this step the later one counts.
    server.play(checkpoints(hashlib.sha256(CONTENT).hexdigest()), Answer(200, CONTENT))
    path = client.download_checkpoint("job_1", 40, tmp_path)
    assert path == tmp_path / "checkpoint-40.safetensors"
    assert path.read_bytes() == CONTENT
    assert server.seen[1].path == "/v1/jobs/job_1/checkpoints/40"
    server.play(checkpoints("1" * 64), Answer(200, CONTENT))
    with pytest.raises(DownloadFailed, match="the checkpoint of step 40 of job_1"):
        client.download_checkpoint("job_1", 40, tmp_path / "other")
    assert list(tmp_path.iterdir()) == [path]
    server.play(checkpoints("1" * 64))
    with pytest.raises(NotFound, match="it has: 20, 40"):
        client.download_checkpoint("job_1", 7, tmp_path)
