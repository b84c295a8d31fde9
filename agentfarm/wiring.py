"""Joins the flow to the real stores: the one place that knows both. Made once a process, when first asked for.

Doors (api, workers, admin, commands) import this and the flow, and nothing that lies behind the ports. A forked child
(prefork) calls `start_worker`, which makes everything anew: neither a connection nor a thread survives a fork.
"""

import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentfarm.conf import settings, strict_msgpack

strict_msgpack()  # before langgraph is imported below

from agentfarm.engine.graphs import GraphRegistry  # noqa: E402
from agentfarm.errors import GraphLoadFailed, GraphNotFound, Misconfigured, StoreUnavailable  # noqa: E402
from agentfarm.flow.dispatch import dispatch  # noqa: E402
from agentfarm.flow.farm import Farm  # noqa: E402
from agentfarm.flow.settle import tell  # noqa: E402
from agentfarm.flow.wave import Waves  # noqa: E402
from agentfarm.persistence.database import Database, Databases, check_at_start  # noqa: E402
from agentfarm.persistence.executions import PostgresExecutions  # noqa: E402
from agentfarm.persistence.healing import PostgresHealing  # noqa: E402
from agentfarm.persistence.keys import PostgresKeys  # noqa: E402
from agentfarm.persistence.leases import WorkerLease  # noqa: E402
from agentfarm.persistence.node_cache import RedisNodeCaches  # noqa: E402
from agentfarm.persistence.redis_tier.claims import RedisClaims  # noqa: E402
from agentfarm.persistence.redis_tier.healing import RedisHealing  # noqa: E402
from agentfarm.persistence.redis_tier.scripts import RedisScripts  # noqa: E402
from agentfarm.persistence.redis_tier.write_behind import WriteBehind  # noqa: E402
from agentfarm.persistence.runs import PostgresRuns  # noqa: E402
from agentfarm.persistence.serde import FaithfulSerializer, serde_of  # noqa: E402
from agentfarm.persistence.store import PostgresStores  # noqa: E402
from agentfarm.persistence.threads import PostgresThreads  # noqa: E402
from agentfarm.process_loop import ProcessLoop  # noqa: E402
from agentfarm.queueing.backlog import QueueBacklog  # noqa: E402
from agentfarm.queueing.broker import make_app  # noqa: E402
from agentfarm.queueing.names import queue_names  # noqa: E402
from agentfarm.queueing.publisher import CeleryPublisher  # noqa: E402
from agentfarm.records import Claimed, ThreadTtl  # noqa: E402
from agentfarm.run_options import RunAhead  # noqa: E402
from agentfarm.streaming.log import RedisEventLog  # noqa: E402
from tenants.keys import FoundKey, KeyRing  # noqa: E402

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

#: Between two tries of a process that starts to reach its database.
START_PAUSE_SECONDS = 1.0

#: Of the time for handing back, what may be spent on runs in Redis: the lease ends after it.
REDIS_SHARE = 2 / 3

RunAsync = Callable[[Coroutine[Any, Any, Any]], Any]

# --------------------------------------------------------------------------- one a process, forks included


@cache
def graphs() -> GraphRegistry:
    """The graphs of the operator's langgraph.json. Those that cannot be loaded are in its `problems`."""
    return GraphRegistry.from_config(settings().graphs_config)


@cache
def celery_app() -> "Celery":
    return make_app(settings(), queues=queue_names(settings(), graphs().queues()))


def serde_for(graph_id: str | None) -> FaithfulSerializer:
    """The serializer of a graph's threads; of one that is not served here: plain values and messages."""
    if graph_id is None:
        return serde_of(None)
    lossy = graphs().is_lossy(graph_id)
    try:
        return serde_of(graphs().get(graph_id).graph, lossy=lossy)
    except (GraphNotFound, GraphLoadFailed):
        return serde_of(None, lossy=lossy)


# --------------------------------------------------------------------------- one a process, made anew after a fork


#: Async nodes and async factories of this process, web and worker alike. No thread before it is needed.
_loop = ProcessLoop()


def _none() -> int:
    return 0


class _Process:
    """What this process has open."""

    def __init__(
        self,
        name: str = "",
        queues: Sequence[str] = (),
        run_async: RunAsync = _loop.run,
        unbegun: Callable[[], int] = _none,
    ) -> None:
        chosen = settings()
        self.pid = os.getpid()
        self.database = Database(chosen)
        self.ops = Database(chosen, url=chosen.ops_url)
        self.databases = Databases(self.database)
        self.lease = WorkerLease(chosen, name=name, queues=queues)
        self.log = RedisEventLog(
            chosen.redis_url.get_secret_value(),
            ttl_seconds=chosen.stream_ttl_seconds,
            max_events=chosen.stream_max_events,
            heartbeat_seconds=chosen.stream_heartbeat_seconds,
            connect_seconds=chosen.connect_timeout_seconds,
        )
        self.caches = RedisNodeCaches(
            chosen.redis_url.get_secret_value(),
            serde_for,
            max_bytes=chosen.node_cache_max_bytes,
            max_seconds=chosen.node_cache_max_seconds,
        )
        self.publisher = CeleryPublisher(celery_app(), chosen.default_queue)
        self.backlog = QueueBacklog(self.publisher.queue_length, unbegun)
        ttl = graphs().ttl
        default_ttl = ThreadTtl(ttl.default_minutes, ttl.strategy) if ttl.default_minutes else None
        self.redis_scripts = RedisScripts((chosen.redis_tier_url or chosen.redis_url).get_secret_value())
        self.behind = WriteBehind(self.redis_scripts, self.databases)
        self.redis = RedisClaims(self.redis_scripts, self.behind, lease_seconds=chosen.lease_seconds)
        self.executions = PostgresExecutions(self.databases, serde_for, self.lease, chosen, self.redis)
        self.farm = Farm(
            graphs=graphs(),
            executions=self.executions,
            runs=PostgresRuns(
                self.databases, serde_for, default_ttl=default_ttl, build=chosen.build, behind=self.behind
            ),
            threads=PostgresThreads(self.databases, serde_for, default_ttl=default_ttl, behind=self.behind),
            stores=PostgresStores(self.databases, graphs().store, max_value_bytes=chosen.store_max_value_bytes),
            healing=PostgresHealing(
                self.ops,
                self.database,
                chosen,
                expiry_seconds=ttl.sweep_minutes * 60,
                redis=RedisHealing(
                    self.redis_scripts,
                    self.behind,
                    late_seconds=chosen.lost_message_seconds,
                    lease_seconds=chosen.lease_seconds,
                ),
            ),
            publisher=self.publisher,
            log=self.log,
            caches=self.caches,
            keys=_keys(PostgresKeys(self.database)),
            run_async=run_async,
            retry_message_seconds=chosen.retry_message_seconds,
            run_ahead=RunAhead(chosen.run_ahead_nodes, chosen.run_ahead_seconds),
            backlog=self.backlog,
            waves=Waves(chosen.wave_messages, self._give_out),
        )
        self.behind.tell = partial(tell, self.farm)

    def _give_out(self, claimed: Claimed, most: int) -> None:
        dispatch(self.farm, self.executions.rest_of_wave(claimed, most))

    def hand_back(self, *, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.lease.take_no_more()
        self.executions.release_all()
        # First, since what this process holds in Redis is lost with its lease. Both give back at the same time.
        self.behind.close(seconds=seconds * REDIS_SHARE)
        self.lease.stop(seconds=max(0.0, end - time.monotonic()))

    def close(self) -> None:
        self.redis.close()
        self.lease.stop()
        self.redis_scripts.close()
        self.publisher.close()
        self.log.close()
        self.caches.close()
        self.databases.dispose()
        self.ops.dispose()


_process: _Process | None = None


def farm() -> Farm:
    """The farm of this process. Raises Misconfigured where a setting is not as it must be."""
    return _here().farm


def _never() -> bool:
    return False


def check(*, gives_up: Callable[[], bool] = _never) -> None:
    """Refuse to serve where tenants would not be safe from each other. Waits for a database that is not there yet.

    Who starts processes again backs off from those that end at once: a database that is away for a few seconds would
    cost them minutes.

    gives_up  asked between two tries: whether this process is to end, and need not wait
    raises    RoleCanBypassIsolation, SchemaNotMigrated, StrictSerializerOff, Misconfigured, StoreUnavailable
    """
    end = time.monotonic() + settings().start_seconds
    while True:
        try:
            _check()
        except StoreUnavailable as error:
            if time.monotonic() >= end or gives_up():
                raise
            logger.warning("the database does not answer; this process waits for it", extra={"code": error.code})
            time.sleep(START_PAUSE_SECONDS)
        else:
            return


def _check() -> None:
    process = _here()
    check_at_start(process.database)
    slug = settings().anonymous_tenant
    if slug and process.farm.keys.anonymous() is None:
        raise Misconfigured(f"ANONYMOUS_TENANT is {slug!r}, and there is no active tenant of that name.")
    if settings().database_ops_url is not None:
        check_at_start(process.ops, setting="DATABASE_OPS_URL", role="ops")


def start_worker(
    name: str,
    *,
    queues: Sequence[str] = (),
    run_async: RunAsync = _loop.run,
    gives_up: Callable[[], bool] = _never,
    unbegun: Callable[[], int] = _none,
) -> None:
    """Make this process a worker: fit to serve, registered, and seen to be alive.

    name       how operators see it: Celery's node name and the pid
    queues     that it reads, as graphs name them
    run_async  runs a coroutine and waits for it; usually on the process's one event loop
    gives_up   as of `check`
    unbegun    messages that this process has taken from the broker and not begun
    raises     Misconfigured and its like, StoreUnavailable
    """
    global _process  # noqa: PLW0603  # Celery's tasks can be handed nothing
    _process = _Process(name, queues, run_async, unbegun)
    check(gives_up=gives_up)
    _process.lease.start()


def stop_worker() -> None:
    """The nodes of this process are over: end its lease, send its last events. Nothing, where none began."""
    global _process  # noqa: PLW0603
    if _process is not None and _process.pid == os.getpid():
        _process.close()
        _process = None
    _loop.close()


def end_soon() -> None:
    """This process is to end: it goes no further than the nodes that it executes now. For a signal's handler, too."""
    if _process is not None and _process.pid == os.getpid():
        _process.backlog.end()


def hand_back(*, seconds: float) -> None:
    """Let other workers have what this process still executes, at once; it is to end without another word.

    seconds  how long the database may take; what it has not heard of by then is taken over as after a crash
    """
    if _process is not None and _process.pid == os.getpid():
        _process.hand_back(seconds=seconds)


def _here() -> _Process:
    global _process  # noqa: PLW0603
    if _process is None or _process.pid != os.getpid():
        _process = _Process()
    return _process


def _keys(store: PostgresKeys) -> KeyRing:
    def look_up(key_id: UUID) -> FoundKey | None:
        found = store.find_key(key_id)
        return None if found is None else FoundKey(hash=found[0], tenant=found[1])

    return KeyRing(
        settings().pepper,
        look_up,
        store.find_tenant,
        mark_used=store.mark_used,
        anonymous=settings().anonymous_tenant,
    )
