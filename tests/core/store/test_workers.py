from sqlalchemy import Engine

from clipwise.store import workers
from clipwise.store.sessions import transaction
from clipwise.store.workers import WorkerInfo


def info(worker_id: str, **kinds: dict[str, object]) -> WorkerInfo:
    return WorkerInfo(
        id=worker_id, host="here", pid=7, queues=["cpu"], slots=2, kinds=kinds, versions={"clipwise": "0"}
    )


def test_live_workers_are_those_heard_of_that_did_not_stop(engine: Engine) -> None:
    with transaction(engine) as session:
        for worker_id in ("wkr_1", "wkr_2"):
            workers.register(session, info(worker_id))
        workers.stop(session, "wkr_2")
    with transaction(engine) as session:
        assert [row.id for row in workers.alive(session)] == ["wkr_1"]
        assert workers.alive(session, within_seconds=-1) == []
        assert [row.id for row in workers.silent(session, "here", for_seconds=-1)] == ["wkr_1"]
        assert workers.silent(session, "elsewhere", for_seconds=-1) == []


def test_a_heartbeat_brings_a_worker_back_and_an_unknown_one_is_told(engine: Engine) -> None:
    with transaction(engine) as session:
        workers.register(session, info("wkr_1"))
        workers.stop(session, "wkr_1")
        assert workers.heartbeat(session, "wkr_1")
        assert not workers.heartbeat(session, "wkr_never_seen")
    with transaction(engine) as session:
        assert [row.id for row in workers.alive(session)] == ["wkr_1"]


def test_kinds_are_those_of_live_workers_with_their_schemas(engine: Engine) -> None:
    with transaction(engine) as session:
        workers.register(session, info("wkr_1", mlp={"title": "old"}, cnn={}))
        workers.register(session, info("wkr_2", mlp={"title": "new"}))
        workers.register(session, info("wkr_3", extra={}))
        workers.stop(session, "wkr_3")
    with transaction(engine) as session:
        kinds = workers.kinds_of_live_workers(session)
    assert {kind: live.workers for kind, live in kinds.items()} == {"mlp": 2, "cnn": 1}
    assert kinds["mlp"].json_schema == {"title": "new"}
