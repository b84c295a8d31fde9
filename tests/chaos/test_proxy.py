"""Each kind of weather does to real sockets what it says, and nothing when it is over."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Network, Proxy


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server, Network() as network:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield network.proxy("client-echo", lambda: server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as made:
        assert ask(made, b"fair") == b"fair"
        yield made


def ask(client: socket.socket, words: bytes, *, seconds: float = 10.0) -> bytes:
    client.settimeout(seconds)
    client.sendall(words)
    return client.recv(len(words), socket.MSG_WAITALL)


@pytest.mark.parametrize("directions", [("up",), ("down",), ("up", "down")], ids="+".join)
def test_what_a_black_hole_took_arrives_when_it_is_gone(
    proxy: Proxy, client: socket.socket, directions: tuple[str, ...]
) -> None:
    proxy.hold(*directions)  # type: ignore[arg-type]

    with pytest.raises(TimeoutError):
        ask(client, b"lost?", seconds=0.2)
    assert proxy.touched > 0
    proxy.clear()

    client.settimeout(10)
    assert client.recv(5, socket.MSG_WAITALL) == b"lost?"


def test_a_cut_resets_open_connections_and_takes_new_ones(proxy: Proxy, client: socket.socket) -> None:
    proxy.cut()

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert proxy.touched == 1
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as other:
        assert ask(other, b"again") == b"again"


def test_who_is_refused_hears_it_at_once_until_the_weather_clears(proxy: Proxy, client: socket.socket) -> None:
    proxy.refuse()

    assert _is_closed(client)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as other:
        assert _is_closed(other)
    proxy.clear()

    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as other:
        assert ask(other, b"fair") == b"fair"


def test_latency_is_felt_in_each_direction(proxy: Proxy, client: socket.socket) -> None:
    proxy.slow(0.1)

    began = time.monotonic()
    assert ask(client, b"slow") == b"slow"

    assert time.monotonic() - began >= 0.2


def test_a_server_that_is_gone_is_seen_through_the_proxy() -> None:
    with Network() as network:
        nobody = network.proxy("client-nobody", lambda: 1)
        with socket.create_connection(("127.0.0.1", nobody.port), timeout=10) as made:
            assert _is_closed(made)


def _is_closed(connection: socket.socket) -> bool:
    """Waits for a word, or for the end."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
