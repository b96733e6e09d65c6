from datetime import timedelta

from sqlalchemy import Engine

from clipwise.store import orphans
from clipwise.store.sessions import transaction


def test_files_let_go_of_are_deleted_once(engine: Engine) -> None:
    with transaction(engine) as session:
        orphans.add(session, ["a", "b", "a"])
    deleted: list[str] = []
    assert orphans.sweep(engine, deleted.append) == 2
    assert orphans.sweep(engine, deleted.append) == 0
    assert deleted == ["a", "b"]


def test_a_reserved_file_waits_and_a_kept_one_stays(engine: Engine) -> None:
    with transaction(engine) as session:
        orphans.reserve(session, ["later"])
        orphans.reserve(session, ["late"], lasting=timedelta(seconds=-1))
        orphans.reserve(session, ["kept"], lasting=timedelta(seconds=-1))
        orphans.keep(session, ["kept"])
    deleted: list[str] = []
    orphans.sweep(engine, deleted.append)
    assert deleted == ["late"]


def test_a_reservation_that_is_given_up_is_due_at_once(engine: Engine) -> None:
    with transaction(engine) as session:
        orphans.reserve(session, ["a"])
    with transaction(engine) as session:
        orphans.add(session, ["a"])
    assert orphans.sweep(engine, lambda _: None) == 1


def test_a_file_that_cannot_be_deleted_is_tried_again(engine: Engine) -> None:
    with transaction(engine) as session:
        orphans.add(session, ["stuck", "fine"])

    def refuse(key: str) -> None:
        if key == "stuck":
            raise OSError("away")

    assert orphans.sweep(engine, refuse) == 1
    assert orphans.sweep(engine, lambda _: None) == 1
