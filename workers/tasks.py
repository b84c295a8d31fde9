"""The one task. What it does is agentfarm/flow/step.py; that it may be done again is the outbox and the lease."""

from typing import Any

from celery import Task

from agentfarm.errors import Unavailable
from agentfarm.flow import step
from agentfarm.messages import parse_message
from agentfarm.queueing.broker import EXECUTE_NODE
from agentfarm.wiring import farm
from workers.celery import app
from workers.telling import telling

#: Tries while the database does not answer, 1 to 60 s apart. After that the message goes: the row stays in the outbox,
#: and the healer publishes it when the database is back.
MAX_RETRIES = 5


@app.task(
    name=EXECUTE_NODE,
    bind=True,
    autoretry_for=(Unavailable,),
    retry_backoff=1,
    retry_backoff_max=60,
    retry_jitter=True,
    max_retries=MAX_RETRIES,
)
def execute_node(self: Task[Any, Any], body: dict[str, Any]) -> str:
    """Execute what the message names. The answer is an Outcome's word, for the log and for Flower."""
    request = self.request
    # After a retry too, the commit may have gone through before the connection broke.
    redelivered = bool((request.delivery_info or {}).get("redelivered")) or bool(request.retries)
    with telling(self) as tell:
        return step.execute_node(farm(), parse_message(body), redelivered=redelivered, tell=tell)
