"""kombu's Redis transport, cheaper: one client a channel, and one command where it has a transaction of two.

kombu makes a new client for every acknowledgement, delivery and publish, and none for a channel whose connection is
gone. `redis.Redis()` builds a table of response callbacks, locks and argument checks: 13 to 15 % of a worker's CPU
here. redis-py's clients are thread-safe and take each connection from the channel's pool anyway, so that one does.

A delivery and its acknowledgement each change a hash and a sorted set, in a pipeline whose upkeep costs five times as
much as a command: 20 % of a worker's CPU. Here each is a script, which is a transaction, too.

Written against kombu 5.7; tests/unit/queueing/test_kombu_redis.py fails when an upgrade changes what it rests on.
"""

import logging
from typing import Any, Final

import kombu as _kombu
import redis
from kombu.transport import redis as _transport
from kombu.utils.json import dumps

from agentfarm import clock
from agentfarm.redis_clients import Script

# celery-types has kombu 5.3's names, and none of the private ones.
kombu: Any = _kombu
transport: Any = _transport

logger = logging.getLogger(__name__)

#: The kombu whose methods were read. Another one runs as it is, a little slower.
WRITTEN_FOR = (5, 7)

_stock = transport.Channel._create_client
_stock_append, _stock_ack = transport.QoS.append, transport.QoS.ack
_CLIENT = "_agentfarm_client"


#: Around kombu's own prefixing, which knows scripts of one key.
_execute: Any = redis.Redis.execute_command


class _OfMessages(Script):
    """KEYS: of the sorted set, of the hash."""

    def run(self, qos: Any, *values: Any) -> None:
        with qos.channel.conn_or_acquire() as client:
            prefix = qos.channel.global_keyprefix or ""
            keys = (prefix + qos.unacked_index_key, prefix + qos.unacked_key)
            try:
                _execute(client, "EVALSHA", self.sha, 2, *keys, *values)
            except redis.exceptions.NoScriptError:  # a new server, or one whose memory was emptied
                _execute(client, "EVAL", self.text, 2, *keys, *values)


#: ARGV: delivery tag, time, message
_DELIVERED: Final = _OfMessages(
    "redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1]) redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])"
)
#: ARGV: delivery tag
_ACKNOWLEDGED: Final = _OfMessages("redis.call('ZREM', KEYS[1], ARGV[1]) redis.call('HDEL', KEYS[2], ARGV[1])")


def _create_client(self: Any, asynchronous: bool = False) -> Any:
    if self.connection is None or self.connection.client is None:
        # Celery has closed what was lost, and then wants back what the worker holds, or a node that ran meanwhile is
        # over and acknowledges. kombu's AttributeError would end the worker; a lost connection is what it knows how to
        # pass over. The message is delivered again in time.
        raise redis.ConnectionError("the channel's connection is closed")
    if asynchronous:  # holds state of its own: a blocked BRPOP, a subscription
        return _stock(self, asynchronous=True)
    client = self.__dict__.get(_CLIENT)
    # A fork or a lost connection gives the channel a new pool; a client of the old one would bring back closed sockets.
    if client is None or client.connection_pool is not self.pool:
        client = self.__dict__[_CLIENT] = _stock(self)
    return client


def _append(self: Any, message: Any, delivery_tag: str) -> None:
    """Of a QoS: the message is this worker's until it is acknowledged."""
    of = message.delivery_info
    kept = dumps([message._raw, of["exchange"], of["routing_key"]])
    _DELIVERED.run(self, delivery_tag, clock.now().timestamp(), kept)  # kombu's sweep compares with its own clock
    transport.virtual.QoS.append(self, message, delivery_tag)


def _ack(self: Any, delivery_tag: str) -> None:
    _ACKNOWLEDGED.run(self, delivery_tag)
    transport.virtual.QoS.ack(self, delivery_tag)


def install() -> bool:
    """Use it from now on in this process; idempotent. False where kombu is not the one this was written for."""
    if tuple(kombu.VERSION[:2]) != WRITTEN_FOR:
        logger.warning("kombu %s keeps its own Redis clients and pipelines", kombu.__version__)
        return False
    transport.Channel._create_client = _create_client
    transport.QoS.append, transport.QoS.ack = _append, _ack
    return True
