"""Fails when an upgrade of kombu changes what agentfarm/queueing/kombu_redis.py rests on."""

import inspect
from types import SimpleNamespace
from typing import ClassVar

import kombu
import pytest
import redis
from kombu.transport import redis as transport

from agentfarm.queueing import kombu_redis
from agentfarm.queueing.lease_keeper import held


def test_the_installed_kombu_is_the_one_it_was_written_for() -> None:
    assert kombu.VERSION[:2] == kombu_redis.WRITTEN_FOR
    assert kombu_redis.install()
    assert transport.Channel._create_client is kombu_redis._create_client
    assert (transport.QoS.append, transport.QoS.ack) == (kombu_redis._append, kombu_redis._ack)


def test_another_kombu_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu_redis.kombu, "VERSION", (5, 8, 0))
    monkeypatch.setattr(transport.Channel, "_create_client", kombu_redis._stock)
    monkeypatch.setattr(transport.QoS, "append", kombu_redis._stock_append)

    assert not kombu_redis.install()
    assert transport.Channel._create_client is kombu_redis._stock
    assert transport.QoS.append is kombu_redis._stock_append


def test_kombus_own_method_still_makes_a_client_a_call_and_takes_what_ours_takes() -> None:
    assert list(inspect.signature(kombu_redis._stock).parameters) == ["self", "asynchronous"]
    assert "self.Client(" in inspect.getsource(kombu_redis._stock)
    assert "_create_client" in inspect.getsource(transport.Channel.conn_or_acquire)


def test_kombus_own_methods_still_keep_a_message_in_a_sorted_set_and_a_hash() -> None:
    append, ack = map(inspect.getsource, (kombu_redis._stock_append, kombu_redis._stock_ack))
    remove = inspect.getsource(transport.QoS._remove_from_indices)

    assert "zadd(self.unacked_index_key" in append
    assert "hset(self.unacked_key, delivery_tag" in append
    assert "dumps([message._raw, EX, RK])" in append
    assert "self._remove_from_indices(delivery_tag).execute()" in ack
    assert "zrem(self.unacked_index_key, delivery_tag)" in remove
    assert "hdel(self.unacked_key, delivery_tag)" in remove
    assert ack.count("\n") == 3, "it does something more"


class Channel:
    """As much of kombu's channel as the patch uses."""

    def __init__(self) -> None:
        self.connection = SimpleNamespace(client=object())  # kombu's transport, and whose it is
        self.pool = Pool()
        self.async_pool = Pool()

    def Client(self, connection_pool: "Pool") -> "Client":
        return Client(connection_pool)


class Pool:
    connection_kwargs: ClassVar[dict[str, object]] = {}


class Client:
    def __init__(self, pool: Pool) -> None:
        self.connection_pool = pool


@pytest.mark.parametrize("is_closed", ["its connection's transport has no client", "it has no connection"])
def test_a_worker_that_lost_its_broker_passes_over_what_it_holds(is_closed: str) -> None:
    """Stock raises AttributeError here, which ends Celery's worker: a node that was under way acknowledges on a channel
    that has been closed meanwhile."""
    with kombu.Connection("redis://127.0.0.1:1/0") as connection:
        channel = object.__new__(transport.Channel)
        channel._pool = None
        if is_closed == "it has no connection":
            channel.connection = None  # as Channel.close leaves it
        else:
            channel.connection = connection.transport
            connection.transport.client = None  # as Connection.collect leaves it

        with pytest.raises(AttributeError):
            kombu_redis._stock(channel)
        with pytest.raises(redis.ConnectionError):
            kombu_redis._create_client(channel)
        assert issubclass(redis.ConnectionError, connection.connection_errors)


def test_a_channel_keeps_one_client_until_its_pool_is_another() -> None:
    channel = Channel()

    first = kombu_redis._create_client(channel)
    assert kombu_redis._create_client(channel) is first

    channel.pool = Pool()  # as after a fork
    assert kombu_redis._create_client(channel).connection_pool is channel.pool


def test_clients_that_hold_state_are_made_anew() -> None:
    channel = Channel()

    assert kombu_redis._create_client(channel, asynchronous=True) is not kombu_redis._create_client(
        channel, asynchronous=True
    )


def test_the_keeper_of_leases_finds_what_kombu_calls_delivered_and_dirty() -> None:
    source = inspect.getsource(transport.virtual.QoS)
    assert "self._delivered" in source
    assert "self._dirty" in source

    qos = type("QoS", (), {"_delivered": {"a": 1, "b": 2, "c": 3}, "_dirty": {"b"}})
    assert held(qos) == ["a", "c"]
