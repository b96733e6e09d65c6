"""Every command against a real service: what it prints, for people and for machines."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipwise.client import Client, ResourceNotFound
from clipwise.wire.jobs import Event, JobProgressed
from tests.integration.conftest import Service

JOB: dict[str, Any] = {
    "name": "short \x1b[31m job",
    "dataset": "digits",
    "model": {"kind": "mlp", "hidden_sizes": [16]},
    "training": {"steps": 40, "batch_size": 64, "seed": 1},
    "clipping": {"max_norm": 1.0},
    "privacy": {"noise_multiplier": 1.0, "delta": 1e-4},
    "tags": {"made_by": "test_cli"},
}
CSV = "age,sex,label\n" + "".join(f"{20 + row % 50},{'fm'[row % 2]},{row % 2}\n" for row in range(200))
Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def call(service: Service) -> Call:
    def run(*arguments: str, stdin: str = "", code: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "clipwise.cli", *arguments],
            input=stdin,
            env=service.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


def as_json(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def finished(service: Service) -> str:
    """Id of a job that has succeeded."""
    with service.client() as client:
        job = client.submit(JOB, wait=True, timeout=120)
    assert job.status == "succeeded", job.status_reason
    return job.id


def test_submit_and_wait_for_people(call: Call) -> None:
    said = call("submit", "-", "--wait", stdin=json.dumps(JOB)).stdout
    assert "succeeded" in said
    assert "accuracy" in said
    assert "epsilon" in said
    assert "\x1b" not in said


def test_submit_and_wait_for_machines(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('dataset = "digits"\n[model]\nkind = "logistic"\n[training]\nsteps = 3\n')
    job = as_json(call("submit", str(file), "--wait", "--json"))
    assert job["status"] == "succeeded"
    assert job["spec"]["model"]["kind"] == "logistic"


def test_submit_gives_an_id_to_go_on_with(call: Call) -> None:
    job_id = call("submit", "-", stdin=json.dumps(JOB)).stdout.strip()
    assert as_json(call("show", job_id, "--json"))["id"] == job_id
    assert "accuracy" in call("watch", job_id).stdout
    assert as_json(call("watch", job_id, "--json"))["id"] == job_id
    call("events", job_id, "--follow")
    assert as_json(call("show", job_id, "--json"))["status"] == "succeeded"


def test_a_job_that_is_refused_names_field_value_and_way_out(call: Call) -> None:
    wrong = {**JOB, "training": {"steps": -5}, "model": {"kind": "mpl"}, "colour": "red"}
    error = call("submit", "-", stdin=json.dumps(wrong), code=1).stderr
    assert "/training/steps is -5: " in error
    assert '/colour is "red": ' in error
    document = json.loads(call("submit", "-", "--json", stdin=json.dumps(wrong), code=1).stderr)
    assert document["status"] == 422
    assert "/training/steps" in [field["pointer"] for field in document["errors"]]


def test_a_job_that_fails_is_exit_code_1(call: Call) -> None:
    doomed = {**JOB, "training": {"steps": 10_000_000}, "limits": {"max_runtime_seconds": 1}}
    del doomed["privacy"]
    done = call("submit", "-", "--wait", "--json", stdin=json.dumps(doomed), code=1)
    assert json.loads(done.stdout)["status"] == "failed"
    assert json.loads(done.stderr)["code"] == "job_not_succeeded"
    assert "max_runtime_exceeded" in json.loads(done.stderr)["detail"]
    watched = call("watch", json.loads(done.stdout)["id"], code=1)
    assert "max_runtime_exceeded" in watched.stderr


def test_cancelling(call: Call, service: Service) -> None:
    endless = {**JOB, "training": {"steps": 10_000_000}, "privacy": None}
    job_id = call("submit", "-", stdin=json.dumps(endless)).stdout.strip()
    call("delete", job_id, code=1)
    assert re.search(r"cancel", call("cancel", job_id).stdout)
    with service.client() as client:
        assert client.wait(job_id, timeout=30).status == "cancelled"
    call("cancel", job_id)
    call("delete", job_id)
    assert json.loads(call("show", job_id, "--json", code=1).stderr)["code"] == "not_found"


def test_a_job_is_paused_and_goes_on(call: Call, service: Service, tmp_path: Path) -> None:
    long = {**JOB, "training": {"steps": 10_000_000}, "privacy": None}
    job_id = call("submit", "-", stdin=json.dumps(long)).stdout.strip()
    with service.client() as client:

        def wait_for(*statuses: str) -> None:
            deadline = time.monotonic() + 60
            while client.job(job_id).status not in statuses:
                assert time.monotonic() < deadline, client.job(job_id)
                time.sleep(0.1)

        wait_for("running")
        assert re.search(r"paus(ing|ed)", call("pause", job_id).stdout)
        wait_for("paused")
        paused = client.job(job_id)
    attempts = as_json(call("attempts", job_id, "--json"))
    assert [(attempt["number"], attempt["outcome"]) for attempt in attempts] == [(1, "paused")]
    assert attempts[0]["worker_id"] in call("attempts", job_id).stdout
    checkpoints = as_json(call("checkpoints", job_id, "--json"))
    assert checkpoints[0]["step"] == paused.checkpoint_step
    assert f"{checkpoints[0]['size']:,}" in call("checkpoints", job_id).stdout
    step = str(checkpoints[0]["step"])
    (path,) = call("download", job_id, "--checkpoint", step, "--to", str(tmp_path)).stdout.split()
    assert Path(path).stat().st_size == checkpoints[0]["size"]
    assert f"step {step}" in call("show", job_id).stdout
    assert re.search(r"queued|running", call("resume", job_id).stdout)
    with service.client() as client:
        wait_for("running")
        assert client.job(job_id).attempt == 2
    call("cancel", job_id)
    with service.client() as client:
        assert client.wait(job_id, timeout=30).status == "cancelled"


def test_jobs_are_made_from_others_and_changed_together(call: Call, finished: str) -> None:
    arguments = ("--set", "training.steps=5", "--set", 'tags={"made_by": "bulk"}', "--set", "name=null")
    cloned = as_json(call("clone", finished, *arguments, "--json"))
    assert cloned["parent"] == {"id": finished, "verb": "clone"}
    assert (cloned["spec"]["training"]["steps"], cloned["name"], cloned["tags"]) == (
        5,
        None,
        {"made_by": "bulk"},
    )
    assert "/training/steps is -5: " in call("clone", finished, "--set", "training.steps=-5", code=1).stderr
    held = {**JOB, "resources": {"queue": "nobody"}, "tags": {"made_by": "held"}}
    ids = [call("submit", "-", stdin=json.dumps(held)).stdout.strip() for _ in range(3)]
    assert call("retry", ids[0], code=1).stderr.startswith("error: cannot retry job")
    selection = ("--all", "--queue", "nobody", "--tag", "made_by:held")
    assert "add --yes" in call("cancel", *selection, code=2).stderr
    done = call("cancel", *selection, "--yes")
    assert sorted(done.stdout.split()) == sorted(ids)
    assert done.stderr == "cancel: 3 done, 0 refused\n"
    again = call("retry", ids[0]).stdout.strip()
    assert again in call("jobs", "--parent", ids[0]).stdout
    assert json.loads(call("cancel", "--all", "--queue", "nobody", "--yes", "--json").stdout)["changed"] == [
        again
    ]
    assert len(call("delete", *selection, "--mine", "-y").stdout.split()) == 4


def test_the_plan(call: Call) -> None:
    plan = as_json(call("plan", "-", "--json", stdin=json.dumps(JOB)))
    assert plan["steps"] == 40
    assert plan["noise_multiplier"] == 1.0
    assert plan["epsilon"] > 0
    assert "noise multiplier" in call("plan", "-", stdin=json.dumps(JOB)).stdout


def test_jobs_are_listed_and_filtered(call: Call, finished: str) -> None:
    listed = as_json(call("jobs", "--json", "--status", "succeeded", "--tag", "made_by:test_cli"))
    assert finished in [job["id"] for job in listed]
    assert {job["status"] for job in listed} == {"succeeded"}
    assert len(as_json(call("jobs", "--json", "--limit", "1"))) == 1
    table = call("jobs").stdout
    assert finished in table
    assert "\x1b" not in table
    assert json.loads(call("jobs", "--status", "lost", "--json", code=1).stderr)["status"] == 422


def test_a_job_and_what_it_left(call: Call, finished: str, tmp_path: Path) -> None:
    assert "accuracy" in call("show", finished).stdout
    events = [json.loads(line) for line in call("events", finished, "--json").stdout.splitlines()]
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    for line in call("logs", finished, "--follow", "--json").stdout.splitlines():
        assert json.loads(line)["object"] == "log_line"
    paths = call("download", finished, "--to", str(tmp_path / "out")).stdout.split()
    assert {Path(path).name for path in paths} == {"model.safetensors", "config.json", "privacy.json"}
    one = as_json(call("download", finished, "privacy.json", "--to", str(tmp_path), "--json"))
    assert json.loads(Path(one[0]["path"]).read_text())
    assert "it has: config.json" in call("download", finished, "x", code=1).stderr


def test_datasets_from_upload_to_deletion(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text(CSV)
    added = as_json(
        call("datasets", "add", str(file), "--visibility", "public", "--target", "label", "--json")
    )
    assert (added["name"], added["status"]) == ("people", "proposed")
    assert [feature["name"] for feature in added["schema"]["features"]] == ["age", "sex"]
    assert "proposed" in call("datasets", "show", "people").stdout
    schema = added["schema"] | {"features": [{"name": "age", "type": "number", "bounds": [0, 120]}]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    confirmed = as_json(
        call("datasets", "confirm", "people", "--schema", str(tmp_path / "schema.json"), "--json")
    )
    assert confirmed["status"] == "ready"
    assert confirmed["schema"]["features"][0]["bounds"] == [0, 120]
    answered = as_json(call("datasets", "confirm", "people", "--max-rows-per-person", "3", "--json"))
    assert answered["schema"]["unit"] == {"column": None, "max_rows": 3}
    assert answered["schema"]["features"] == confirmed["schema"]["features"]
    assert "people" in call("datasets", "list").stdout
    job = {"dataset": "people", "model": {"kind": "logistic"}, "training": {"steps": 5, "batch_size": 8}}
    assert as_json(call("submit", "-", "--wait", "--json", stdin=json.dumps(job)))["status"] == "succeeded"
    assert "deleted" in call("datasets", "delete", added["id"]).stdout
    assert json.loads(call("datasets", "show", "people", "--json", code=1).stderr)["status"] == 404


def test_a_file_that_cannot_be_read(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "broken.csv"
    file.write_text("a,b\n1,2\n3\n")
    error = call("datasets", "add", str(file), "--visibility", "public", code=1).stderr
    assert error.startswith("error: ")
    assert "no file" in call("datasets", "add", str(tmp_path / "none.csv"), code=1).stderr
    assert "broken" not in call("datasets", "list").stdout


def test_the_catalogue_and_the_machines(call: Call) -> None:
    kinds = {kind["kind"]: kind for kind in as_json(call("models", "--json"))}
    assert {"logistic", "linear", "mlp", "cnn"} <= set(kinds)
    assert kinds["mlp"]["json_schema"]["properties"]["hidden_sizes"]
    assert kinds["mlp"]["workers"] == 1
    assert "hidden_sizes" in call("models").stdout
    assert [worker["alive"] for worker in as_json(call("workers", "--json"))].count(True) == 1
    assert "cpu" in call("workers").stdout
    assert "cpu" in [queue["name"] for queue in as_json(call("queues", "--json"))]
    assert "cpu" in call("queues").stdout


def test_a_worker_is_drained_and_takes_jobs_again(call: Call) -> None:
    (worker_id,) = [worker["id"] for worker in as_json(call("workers", "--json")) if worker["alive"]]
    try:
        assert call("workers", "drain", worker_id).stdout == f"{worker_id} is draining\n"
        assert "draining" in call("workers").stdout
        job_id = call("submit", "-", stdin=json.dumps(JOB)).stdout.strip()
        reason = as_json(call("show", job_id, "--json"))["status_reason"]
        # Its noise may have to be calibrated first.
        assert reason is None or f"is draining ({worker_id})" in reason["message"]
    finally:
        assert as_json(call("workers", "undrain", worker_id, "--json"))["draining"] is False
    call("events", job_id, "--follow")
    assert as_json(call("show", job_id, "--json"))["status"] == "succeeded"
    assert "there is no worker 'wrk_none'" in call("workers", "drain", "wrk_none", code=1).stderr


def test_a_sign_in_link(call: Call, service: Service) -> None:
    link = as_json(call("signin", "--json"))
    assert link["url"].startswith(f"{service.url}/#")
    assert call("signin").stdout.startswith(f"{service.url}/#")


def test_a_wrong_key(service: Service) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clipwise.cli", "jobs", "--json"],
        env={**os.environ, "CLIPWISE_URL": service.url, "CLIPWISE_API_KEY": "cw_wrong_key"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert json.loads(done.stderr)["status"] == 401
    assert "cw_wrong_key" not in done.stderr


def test_the_python_client(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CLIPWISE_URL", raising=False)
    monkeypatch.delenv("CLIPWISE_API_KEY", raising=False)
    monkeypatch.setenv("CLIPWISE_DATA_DIR", str(service.data_dir))
    with Client() as client:
        job = client.submit({**JOB, "training": {"steps": 200, "batch_size": 64}})
        items = list(client.stream(job.id))
        assert client.job(job.id).status == "succeeded"
        events = [item.id for item in items if isinstance(item, Event)]
        assert events == list(range(1, len(events) + 1))
        assert any(isinstance(item, JobProgressed) for item in items)
        rest = [item.id for item in client.stream(job.id, after=events[1]) if isinstance(item, Event)]
        assert rest == events[2:]
        assert [event.id for event in client.events(job.id, after=1)] == events[1:]
        series = client.metrics(job.id)
        assert all(len(one.step) == len(one.value) for one in series.values())
        assert client.download(job.id, "config.json", tmp_path) == tmp_path / "config.json"
        assert client.delete(job.id).deleted
        with pytest.raises(ResourceNotFound):
            client.job(job.id)
