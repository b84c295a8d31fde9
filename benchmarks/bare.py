"""The baseline of a hop: a Celery task that sends the next one, with the farm's own Celery settings and broker.

Its queue is its own, so that the farm's workers never take a hop, nor these workers a node.
Worker: `celery -A benchmarks.bare worker -P threads -c 8 -Q bench`.
"""

import json
import uuid
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import redis

from agentfarm.conf import settings
from agentfarm.queueing.broker import make_app
from benchmarks.rounds import epoch_seconds

QUEUE = "bench"
NODES = 10
PATIENCE_SECONDS = 30

#: When each task of a chain began, in seconds since 1970.
Chain = list[float]

app = make_app(settings(), queues=(settings().default_queue, QUEUE))


@app.task(name="benchmarks.hop")
def hop(key: str, begun: Chain, left: int) -> None:
    begun = [*begun, epoch_seconds()]
    if left > 1:
        hop.apply_async((key, begun, left - 1), queue=QUEUE)
    else:
        _redis().lpush(key, json.dumps(begun))


def run_chain() -> Chain:
    """Send the first task and wait for the last. Raises TimeoutError."""
    key = f"bench:{uuid.uuid4().hex}"
    hop.apply_async((key, [], NODES), queue=QUEUE)
    answer = _redis().brpop([key], timeout=PATIENCE_SECONDS)
    if answer is None:
        raise TimeoutError(f"a bare chain of tasks did not end within {PATIENCE_SECONDS} s")
    begun: Chain = json.loads(answer[1])
    return begun


def bare_hops(chain: Callable[[], Chain], runs: int) -> list[float]:
    """Seconds from the start of a task to the start of the next."""
    return [after - before for _ in range(runs) for before, after in pairwise(chain())]


@cache
def _redis() -> "redis.Redis":
    # redis-py gives up on a socket after 5 s of its own, sooner than a slow chain.
    return redis.Redis.from_url(settings().redis_url.get_secret_value(), socket_timeout=PATIENCE_SECONDS + 5)
