"""Which port the embedded service takes."""

import socket

import pytest

from clipwise.cli.embedded.ports import choose_port, reachable_url
from clipwise.errors import ConfigurationError
from tests.conftest import free_port


def test_a_free_port_is_taken() -> None:
    port = free_port()
    assert choose_port("127.0.0.1", port, given=True, say=print) == port
    assert choose_port("127.0.0.1", 0, given=False, say=print) > 0


def test_a_busy_port() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"CLIPWISE_PORT is {port}"):
            choose_port("127.0.0.1", port, given=True, say=said.append)
        assert not said
        other = choose_port("127.0.0.1", port, given=False, say=said.append)
    assert other not in (0, port)
    assert str(port) in said[0]
    assert str(other) in said[0]


@pytest.mark.parametrize("host", ["203.0.113.1", "no such host"])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(ConfigurationError, match="CLIPWISE_HOST"):
        choose_port(host, 0, given=False, say=print)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("gpu-1", "http://gpu-1:80"),
    ],
)
def test_where_it_can_be_reached(host: str, url: str) -> None:
    assert reachable_url(host, 80) == url
