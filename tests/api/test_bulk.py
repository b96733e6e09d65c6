"""One verb for many jobs."""

from typing import Any

import httpx
import pytest

from tests.api.conftest import JOB, Api


def submit(client: httpx.Client, number: int, **changes: Any) -> list[str]:
    ids = []
    for n in range(number):
        answer = client.post("/v1/jobs", json={**JOB, "name": f"job {n}", **changes})
        assert answer.status_code == 201, answer.text
        ids.append(answer.json()["id"])
    return ids


def bulk(
    client: httpx.Client, verb: str, headers: dict[str, str] | None = None, **body: Any
) -> dict[str, Any]:
    after = {"after": body.pop("after")} if "after" in body else {}
    answer = client.post("/v1/jobs/bulk", json={"verb": verb, "filter": body, **after}, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def statuses(client: httpx.Client, ids: list[str]) -> list[str]:
    return [client.get(f"/v1/jobs/{job_id}").json()["status"] for job_id in ids]


def test_a_selection_is_changed_the_oldest_first(owner: httpx.Client) -> None:
    ids = submit(owner, 4)
    wine = submit(owner, 1, dataset="wine", model={"kind": "logistic"}, tags={"team": "x"})
    paused = bulk(owner, "pause", ids=[ids[2], ids[0], ids[0]])
    assert paused == {
        "object": "bulk_result",
        "changed": [ids[0], ids[2]],
        "refused": [],
        "has_more": False,
        "next_cursor": None,
    }
    assert bulk(owner, "resume", status=["paused"])["changed"] == [ids[0], ids[2]]
    assert bulk(owner, "cancel", dataset="wine", tag=["team:x"])["changed"] == wine
    assert bulk(owner, "cancel", status=["queued"], q="job", queue="cpu", model="mlp")["changed"] == ids
    assert set(statuses(owner, [*ids, *wine])) == {"cancelled"}
    # A second time there is nothing left that the filter means.
    assert bulk(owner, "cancel", status=["queued"])["changed"] == []
    assert bulk(owner, "delete", ids=ids)["changed"] == ids
    assert [job["id"] for job in owner.get("/v1/jobs").json()["data"]] == wine


def test_one_refusal_stops_nothing_and_is_named(owner: httpx.Client) -> None:
    first, second, third = submit(owner, 3)
    owner.post(f"/v1/jobs/{second}/cancel")
    done = bulk(owner, "cancel", ids=[first, "job_none", second, third])
    assert done["changed"] == [first, third]
    assert {refusal["id"]: refusal["code"] for refusal in done["refused"]} == {
        "job_none": "not_found",
        second: "illegal_transition",
    }
    assert second in done["refused"][1]["detail"]
    assert "cancelled" in done["refused"][1]["detail"]
    assert statuses(owner, [first, second, third]) == ["cancelled"] * 3


def test_a_retry_makes_new_jobs_and_lists_them(owner: httpx.Client) -> None:
    ids = submit(owner, 3)
    bulk(owner, "cancel", ids=ids[:2])
    headers = {"Idempotency-Key": "again"}
    made = bulk(owner, "retry", headers, ids=ids)
    assert [refusal["id"] for refusal in made["refused"]] == [ids[2]]
    parents = [owner.get(f"/v1/jobs/{job_id}").json()["parent"] for job_id in made["changed"]]
    assert parents == [{"id": job_id, "verb": "retry"} for job_id in ids[:2]]
    # The answer may have been lost: under its key it is the same one again.
    assert bulk(owner, "retry", headers, ids=ids) == made
    other = bulk(owner, "retry", headers, ids=ids[:2])
    assert {refusal["code"] for refusal in other["refused"]} == {"idempotency_mismatch"}
    assert len(bulk(owner, "retry", ids=ids[:1])["changed"]) == 1
    assert len(owner.get("/v1/jobs").json()["data"]) == 6


def test_a_selection_without_a_condition_is_refused(owner: httpx.Client) -> None:
    (job_id,) = submit(owner, 1)
    for chosen in ({}, {"ids": None, "status": None}):
        refused = owner.post("/v1/jobs/bulk", json={"verb": "cancel", "filter": chosen})
        assert refused.status_code == 422
        (problem,) = refused.json()["errors"]
        assert problem["pointer"] == "/filter"
        assert "selects nothing" in problem["detail"]
    for chosen, pointer in (
        ({"ids": []}, "/filter/ids"),
        ({"status": []}, "/filter/status"),
        ({"tag": []}, "/filter/tag"),
        ({"q": ""}, "/filter/q"),
        ({"status": ["flying"]}, "/filter/status/0"),
        ({"tag": ["no colon"]}, "/filter/tag"),
        ({"ids": ["x"] * 1001}, "/filter/ids"),
        ({"surprise": 1}, "/filter/surprise"),
    ):
        refused = owner.post("/v1/jobs/bulk", json={"verb": "cancel", "filter": chosen})
        assert refused.status_code == 422, chosen
        assert [problem["pointer"] for problem in refused.json()["errors"]] == [pointer]
    for body in ({"verb": "clone", "filter": {"ids": ["x"]}}, {"verb": "cancel"}):
        assert owner.post("/v1/jobs/bulk", json=body).status_code == 422
    for verb in ("cancel", "retry"):
        for after in ("nonsense", "nonsense~", "nonsense~2026-01-01T00:00:00+00:00", "~", "a~2026-01-01"):
            body = {"verb": verb, "filter": {"status": ["queued"]}, "after": after}
            assert owner.post("/v1/jobs/bulk", json=body).json()["errors"][0]["code"] == "invalid_cursor"
    assert statuses(owner, [job_id]) == ["queued"]


def test_more_than_fit_are_taken_in_turns(owner: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = submit(owner, 5)
    owner.post(f"/v1/jobs/{ids[0]}/cancel")
    monkeypatch.setattr("clipwise_api.verbs.MOST_AT_ONCE", 2)
    # What refuses is passed by, so that the turns come to an end.
    seen, after = [], {}
    for has_more in (True, True, False):
        done = bulk(owner, "cancel", ids=ids, **after)
        assert (done["has_more"], done["next_cursor"] is not None) == (has_more, has_more)
        seen += done["changed"] + [refusal["id"] for refusal in done["refused"]]
        after = {"after": done["next_cursor"]}
    assert sorted(seen) == ids
    # The same for retries, which leave the jobs that they are made of as they are.
    first = bulk(owner, "retry", parent=None, ids=ids[:4])
    second = bulk(owner, "retry", ids=ids[:4], after=first["next_cursor"])
    assert (len(first["changed"]), len(second["changed"]), second["has_more"]) == (2, 2, False)


def test_a_condition_leaves_out_what_the_verb_cannot_be_done_to(
    owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = submit(owner, 4)
    bulk(owner, "cancel", ids=ids[:1])
    bulk(owner, "pause", ids=ids[1:2])
    resumed = bulk(owner, "resume", q="job")
    assert (resumed["changed"], resumed["refused"]) == (ids[1:2], [])
    nothing = bulk(owner, "resume", status=["cancelled"])
    assert (nothing["changed"], nothing["refused"]) == ([], [])
    monkeypatch.setattr("clipwise_api.verbs.MOST_AT_ONCE", 2)
    after = {}
    for turn in ([ids[1], ids[2]], [ids[3]]):
        done = bulk(owner, "cancel", model="mlp", **after)
        assert (done["changed"], done["refused"]) == (turn, [])
        after = {"after": done["next_cursor"]}
    assert not done["has_more"]


def test_what_a_retry_makes_is_not_retried_in_a_later_turn(
    owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = submit(owner, 3)
    bulk(owner, "cancel", ids=ids)
    monkeypatch.setattr("clipwise_api.verbs.MOST_AT_ONCE", 2)
    first = bulk(owner, "retry", status=["cancelled"])
    assert (len(first["changed"]), first["has_more"]) == (2, True)
    bulk(owner, "cancel", ids=first["changed"])
    second = bulk(owner, "retry", status=["cancelled"], after=first["next_cursor"])
    parents = [owner.get(f"/v1/jobs/{job_id}").json()["parent"]["id"] for job_id in second["changed"]]
    assert (parents, second["has_more"]) == (ids[2:], False)


def test_a_bulk_change_that_takes_long_says_where_it_stopped(
    owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = submit(owner, 3)
    monkeypatch.setattr("clipwise_api.verbs.BULK_SECONDS", -1.0)
    changed, after = [], {}
    while True:
        done = bulk(owner, "cancel", ids=ids, **after)
        assert len(done["changed"]) == 1
        changed += done["changed"]
        if not done["has_more"]:
            break
        after = {"after": done["next_cursor"]}
    assert changed == ids


def test_an_analyst_changes_only_its_own_of_a_selection(api: Api, owner: httpx.Client) -> None:
    (theirs,) = submit(owner, 1)
    with api.client(api.key_of("analyst")) as analyst:
        (mine,) = submit(analyst, 1)
        for verb in ("pause", "resume", "cancel", "retry", "delete"):
            done = bulk(analyst, verb, ids=[theirs, mine])
            assert len(done["changed"]) == 1
            assert [(refusal["id"], refusal["code"]) for refusal in done["refused"]] == [
                (theirs, "forbidden")
            ]
        assert statuses(owner, [theirs]) == ["queued"]
        left = bulk(analyst, "cancel", created_by="me")
        assert (len(left["changed"]), left["refused"]) == (1, [])
        (other,) = submit(analyst, 1)
        own = bulk(analyst, "cancel", status=["queued"])
        assert (own["changed"], own["refused"]) == ([other], [])
    assert statuses(owner, [theirs]) == ["queued"]
