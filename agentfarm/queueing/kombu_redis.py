"""One Redis client a channel, where kombu makes a new one for every acknowledgement, delivery and publish; and none
for a channel whose connection is gone.

`redis.Redis()` builds a table of response callbacks, locks and argument checks: 13 to 15 % of a worker's CPU here.
redis-py's clients are thread-safe and take each connection from the channel's pool anyway, so that one does.
Written against kombu 5.7; tests/unit/queueing/test_kombu_redis.py fails when an upgrade changes what it rests on.
"""

import logging
from typing import Any

import kombu as _kombu
import redis
from kombu.transport import redis as _transport

# celery-types has kombu 5.3's names, and none of the private ones.
kombu: Any = _kombu
transport: Any = _transport

logger = logging.getLogger(__name__)

#: The kombu whose `Channel._create_client` was read. Another one runs as it is, a little slower.
WRITTEN_FOR = (5, 7)

_stock = transport.Channel._create_client
_CLIENT = "_agentfarm_client"


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


def install() -> bool:
    """Use it from now on in this process; idempotent. False where kombu is not the one this was written for."""
    if tuple(kombu.VERSION[:2]) != WRITTEN_FOR:
        logger.warning("kombu %s keeps its own Redis clients", kombu.__version__)
        return False
    transport.Channel._create_client = _create_client
    return True
