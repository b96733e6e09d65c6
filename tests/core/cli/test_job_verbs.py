"""Commands that change jobs, against a service that plays a script."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from clipwise.cli.program import run
from tests.core.client.conftest import KEY, Answer, Script, problem

JobDocument = Callable[..., dict[str, Any]]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def service(server: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPWISE_URL", server.url)
    monkeypatch.setenv("CLIPWISE_API_KEY", KEY)


def result(changed: list[str], refused: list[str]) -> Answer:
    refusals = [{"id": job_id, "code": "forbidden", "detail": "not yours"} for job_id in refused]
    return Answer(200, {"changed": changed, "refused": refusals, "has_more": False})


@pytest.mark.parametrize(
    ("verb", "status", "said"),
    [
        ("cancel", "cancelling", "job_1 is cancelling\n"),
        ("pause", "pausing", "job_1 is pausing\n"),
        ("resume", "queued", "job_1 is queued\n"),
        ("retry", "queued", "job_1\n"),
    ],
)
def test_one_job(
    server: Script, job_document: JobDocument, capsys: Captured, verb: str, status: str, said: str
) -> None:
    server.play(Answer(200, job_document(status)))
    assert run([verb, "job_1"]) == 0
    assert capsys.readouterr().out == said
    assert (server.seen[0].method, server.seen[0].path) == ("POST", f"/v1/jobs/job_1/{verb}")
    assert run([verb, "job_1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == status


def test_every_job_of_a_selection(server: Script, capsys: Captured) -> None:
    server.play(result(["job_1", "job_2"], []))
    assert run(["cancel", "--all", "--status", "queued", "--tag", "a:b", "--mine", "--yes"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("job_1\njob_2\n", "cancel: 2 done, 0 refused\n")
    assert json.loads(server.seen[0].body) == {
        "verb": "cancel",
        "filter": {"status": ["queued"], "tag": ["a:b"], "created_by": "me"},
    }


def test_without_a_status_it_is_what_the_verb_can_be_done_to(server: Script) -> None:
    server.play(result([], []))
    assert run(["retry", "--all", "--yes"]) == 0
    assert json.loads(server.seen[0].body)["filter"] == {"status": ["cancelled", "failed"]}


def test_what_was_refused_is_named_and_is_code_1(server: Script, capsys: Captured) -> None:
    server.play(result(["job_1"], ["job_2"]))
    assert run(["pause", "--all", "--queue", "gpu", "-y"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "job_1\n"
    assert shown.err == "error: job_2: not yours\npause: 1 done, 1 refused\n"
    assert run(["pause", "--all", "--yes", "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["refused"][0]["id"] == "job_2"
    assert shown.err == ""


def test_a_selection_is_asked_for_once(
    server: Script, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.play(result(["job_1"], []))
    # Nobody is there to say yes.
    assert run(["delete", "--all", "--dataset", "digits"]) == 2
    assert "add --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    asked: list[str] = []

    def answer(text: str, **_: object) -> bool:
        asked.append(text)
        return True

    monkeypatch.setattr("typer.confirm", answer)
    assert not server.seen
    assert run(["delete", "--all", "--dataset", "digits"]) == 0
    assert asked == ["Delete every job with dataset digits, status cancelled or failed or succeeded?"]
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["job_1", "--all"], ["--status", "queued"], ["job_1", "--status", "queued"], ["--yes"]],
)
def test_what_does_not_go_together_changes_nothing(
    server: Script, capsys: Captured, arguments: list[str]
) -> None:
    server.play(result(["job_1"], []))
    assert run(["cancel", *arguments]) == 2
    assert "give the id of one job, or --all" in capsys.readouterr().err
    assert not server.seen


def test_a_clone(server: Script, job_document: JobDocument, capsys: Captured) -> None:
    server.play(Answer(201, job_document("queued", id="job_2")))
    assert run(["clone", "job_1", "--set", "training.steps=null", "--set", "training.epochs=3"]) == 0
    assert capsys.readouterr().out == "job_2\n"
    assert json.loads(server.seen[0].body) == {"changes": {"training": {"steps": None, "epochs": 3}}}
    errors = [{"pointer": "/training/steps", "detail": "too few", "code": "ge"}]
    server.play(problem(422, errors=errors))
    assert run(["clone", "job_1", "--set", "training.steps=-3"]) == 1
    assert capsys.readouterr().err == "error: /training/steps is -3: too few\n"
    assert run(["clone", "job_1", "--set", "name=again"]) == 2
    assert len(server.seen) == 1


def test_a_worker_is_drained(server: Script, capsys: Captured) -> None:
    worker = {"id": "wrk_1", "host": "h", "queues": ["cpu"], "slots": 1, "kinds": [], "versions": {}}
    worker |= {"alive": True, "current_jobs": [], "started_at": "2026-01-01T00:00:00.000Z"}
    worker |= {"heartbeat_at": "2026-01-01T00:00:00.000Z", "heartbeat_age_seconds": 4.2, "draining": True}
    server.play(Answer(200, worker))
    assert run(["workers", "drain", "wrk_1"]) == 0
    assert capsys.readouterr().out == "wrk_1 is draining\n"
    assert run(["workers", "drain", "wrk_1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["draining"] is True
    server.play(Answer(200, {"data": [worker]}))
    assert run(["workers"]) == 0
    shown = capsys.readouterr().out
    assert "draining" in shown
    assert "4 s ago" in shown
    assert run(["workers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == "wrk_1"


def test_attempts_and_checkpoints(server: Script, capsys: Captured) -> None:
    moment = "2026-01-01T00:00:00.000Z"
    attempt = {"number": 1, "worker_id": "wrk_1", "start_step": 0, "started_at": moment, "finished_at": None}
    server.play(Answer(200, {"data": [{**attempt, "outcome": "interrupted", "reason": "lost \x1b[31m"}]}))
    assert run(["attempts", "job_1"]) == 0
    shown = capsys.readouterr().out
    assert "interrupted" in shown
    assert "\x1b" not in shown
    assert run(["attempts", "job_1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["worker_id"] == "wrk_1"
    checkpoint = {"step": 40, "attempt": 1, "size": 12_345, "sha256": "0", "best": True, "created_at": moment}
    server.play(Answer(200, {"data": [checkpoint]}))
    assert run(["checkpoints", "job_1"]) == 0
    assert "12,345" in capsys.readouterr().out
    assert run(["checkpoints", "job_1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["step"] == 40
    assert run(["download", "job_1", "model.safetensors", "--checkpoint", "40"]) == 2
