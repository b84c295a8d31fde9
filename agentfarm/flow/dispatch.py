"""Station 3: outbox to queue, after the commit.

What is handed over here is durable already, so that a message which the broker does not take is late, never lost:
its row is in the outbox, and the healer publishes it.
"""

import logging
from collections.abc import Sequence

from agentfarm.errors import BrokerUnavailable
from agentfarm.flow.farm import Farm
from agentfarm.messages import ExecuteNode

logger = logging.getLogger(__name__)


def dispatch(farm: Farm, messages: Sequence[ExecuteNode]) -> None:
    """Publish, one message a node execution. Never raises: the outbox keeps what the broker refused."""
    if not messages:
        return
    try:
        farm.publisher.publish(messages)
    except BrokerUnavailable as error:
        logger.warning("messages stay in the outbox", extra={"code": error.code, **error.facts})
