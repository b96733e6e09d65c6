from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine, func, select

from clipwise.store import outbox
from clipwise.store.sessions import reading, transaction
from clipwise.store.tables import OutboxRow


def add(engine: Engine, *queues: str) -> None:
    with transaction(engine) as session:
        for queue in queues:
            outbox.add(session, queue)


def waiting(engine: Engine) -> int:
    with reading(engine) as session:
        return session.execute(select(func.count()).select_from(OutboxRow)).scalar_one()


def test_messages_go_out_once_and_in_order(engine: Engine) -> None:
    add(engine, "cpu", "gpu", "cpu")
    sent: list[str] = []
    assert outbox.relay(engine, sent.append) == 3
    assert outbox.relay(engine, sent.append) == 0
    assert sent == ["cpu", "gpu", "cpu"]


def test_a_transaction_that_is_rolled_back_sends_nothing(engine: Engine) -> None:
    try:
        with transaction(engine) as session:
            outbox.add(session, "cpu")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert outbox.relay(engine, lambda _: None) == 0


def test_a_broker_that_is_down_leaves_what_it_did_not_take(engine: Engine) -> None:
    add(engine, "cpu", "gpu", "cpu")

    def publish(queue: str) -> None:
        if queue == "gpu":
            raise ConnectionError("refused")

    assert outbox.relay(engine, publish) == 1
    assert waiting(engine) == 2
    assert outbox.relay(engine, lambda _: None) == 2
    assert waiting(engine) == 0


def test_several_relays_at_once_send_everything_at_least_once(engine: Engine) -> None:
    add(engine, *(f"queue-{number}" for number in range(60)))
    sent: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(outbox.relay, engine, sent.append)
    assert set(sent) == {f"queue-{number}" for number in range(60)}
    assert waiting(engine) == 0
