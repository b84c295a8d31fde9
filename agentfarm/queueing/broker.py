"""The Celery app: settings that keep what a dead worker held, and nothing that a message could be lost or doubled by.

Every value was measured or was a bug that bit (RabbitMQ 3.10 quorum queues, Redis 7, Valkey 9, SQS as moto 5.2 has it;
celery and kombu 5.7.0).
Tasks are workers/tasks.py; which queues there are says names.py.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from celery import Celery
from celery.app.amqp import Queues
from kombu import Connection, Exchange, Queue
from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
)
from kombu.utils.functional import maybe_list
from redis.backoff import NoBackoff
from redis.retry import Retry

from agentfarm.conf import BrokerKind, Sentinels, Settings
from agentfarm.messages import at_build, split_build
from agentfarm.queueing import kombu_redis, sqs
from agentfarm.queueing.lease_keeper import LeaseKeeper, ThreadedLeaseKeeper
from agentfarm.queueing.names import VERSION, broker_name, graph_name, queue_names
from agentfarm.redis_clients import SENTINEL_SECONDS

logger = logging.getLogger(__name__)

#: The one task there is.
EXECUTE_NODE = "agentfarm.execute_node"

#: Redis and SQS give a message to another worker when nobody renewed it for this long; a keeper renews it while its
#: node runs. The healer is faster: this is the second net.
VISIBILITY_SECONDS = 30

#: A message that was handed out this often and never acknowledged goes to the dead letters. The run is not lost by
#: that: the healer counts attempts of its own, buries the node execution and ends the run with a reason.
DELIVERY_LIMIT = 20

DEAD_LETTERS = "agentfarm.dead"

_TOPIC = Exchange("agentfarm", type="topic", durable=True)
_DEAD = Exchange(DEAD_LETTERS, type="fanout", durable=True)


def make_app(settings: Settings, queues: Sequence[str]) -> Celery:
    """The Celery app on the settings' broker, with these queues (as graphs name them: `-Q io,gpu` works as well).

    raises  Misconfigured for a broker that cannot be used
    """
    kind = settings.broker_kind
    if kind == "redis":
        kombu_redis.install()
    if kind == "sqs":
        sqs.install()
        sqs.check_names(settings, queues)
    url = settings.broker_url.get_secret_value()
    options = _transport_options(kind, settings)
    if (sentinels := Sentinels.parse(url)) is not None:
        url = _kombus_url(sentinels)
        options |= _sentinel_options(sentinels)
    # No fixups: with DJANGO_SETTINGS_MODULE set, Celery would load Django into every worker and manage its connections.
    app = Celery("agentfarm", broker=url, fixups=[], set_as_current=False)
    amqp = kind == "amqp"
    app.amqp.queues_cls = ChosenQueues
    declared = [make_queue(at_build(name, settings.build), alias=name, amqp=amqp) for name in queues]
    default = declared[list(queues).index(settings.default_queue)]
    app.conf.update(
        # CELERY_BROKER_URL in the environment would otherwise win over the settings that were handed in.
        broker_read_url=url,
        broker_write_url=url,
        task_queues=declared,
        task_default_queue=default.name,
        # All four, or the default exchange is a direct one, on which RabbitMQ cannot delay.
        task_default_exchange=default.exchange.name,
        task_default_exchange_type=default.exchange.type,
        task_default_routing_key=default.routing_key,
        broker_transport_options=options,
        # For Flower; about a third of a bare hop's CPU. SQS has no place for events and commands.
        worker_send_task_events=settings.task_events and kind != "sqs",
        worker_enable_remote_control=kind != "sqs",
        worker_disable_prefetch=kind == "redis",  # known to the Redis transport only
        **_COMMON,
    )
    consumer = "SilentConsumer" if kind == "sqs" else "BatchingConsumer"
    app.conf.worker_consumer = f"agentfarm.queueing.consumer:{consumer}"
    if kind == "redis":
        app.steps["consumer"].add(LeaseKeeper)
    if kind == "sqs":
        app.steps["consumer"].add(ThreadedLeaseKeeper)
    return app


class ChosenQueues(Queues):
    """`-Q` and `-X` take a queue as graphs name it ("cpu"), or as the broker does without builds ("cpu.v1"): a Procfile
    says the same for every build."""

    aliases: Any  # Celery's, which its stubs do not know

    def select(self, include: Any) -> Any:
        return super().select([self._own(name) for name in maybe_list(include) or ()])

    def deselect(self, exclude: Any) -> None:
        super().deselect([self._own(name) for name in maybe_list(exclude) or ()])

    def _own(self, name: str) -> str:
        of_graphs = name.removesuffix(f".{VERSION}")
        return str(self.aliases[of_graphs].name) if of_graphs in self.aliases else name


def make_queue(name: str, *, amqp: bool, alias: str | None = None) -> Queue:
    """The broker's queue of this name, of a build ("gpu@1.4") or of none.

    alias  for `-Q`
    """
    return _quorum_queue(name, alias) if amqp else _list_queue(name, alias)


def _quorum_queue(name: str, alias: str | None) -> Queue:
    queue = broker_name(name)
    return Queue(
        queue,
        _TOPIC,
        routing_key=queue,
        alias=alias,
        queue_arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": DEAD_LETTERS,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def _list_queue(name: str, alias: str | None) -> Queue:
    queue = broker_name(name)
    return Queue(queue, Exchange(queue, type="direct"), routing_key=queue, alias=alias)


def _transport_options(kind: BrokerKind, settings: Settings) -> dict[str, Any]:
    if kind == "amqp":
        return _amqp_options()
    if kind == "redis":
        return _redis_options()
    return sqs.transport_options(settings, visibility_seconds=VISIBILITY_SECONDS, delivery_limit=DELIVERY_LIMIT)


def _amqp_options() -> dict[str, Any]:
    # 7 of 1510 messages were lost in a kill -9 of RabbitMQ without confirms, none with.
    return {"confirm_publish": True}


def _redis_options() -> dict[str, Any]:
    return {
        "visibility_timeout": VISIBILITY_SECONDS,
        # The stock sweep comes every 10 x 10 s: a dead worker's message would wait 100 s.
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_keepalive": True,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "health_check_interval": 10,
        "global_keyprefix": "agentfarm:",
        # No message has a priority: one list a queue instead of four.
        "priority_steps": [0],
    }


def _kombus_url(sentinels: Sentinels) -> str:
    """One URL a Sentinel, each with the login of the Redis that they name."""
    login = ":".join(quote(part or "", safe="") for part in (sentinels.username, sentinels.password))
    hosts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in sentinels.hosts]
    return ";".join(f"sentinel://{login}@{host}/{sentinels.database}" for host in hosts)


def _sentinel_options(sentinels: Sentinels) -> dict[str, Any]:
    return {
        "master_name": sentinels.service,
        "sentinel_kwargs": {
            "username": sentinels.own_username,
            "password": sentinels.own_password,
            "socket_timeout": SENTINEL_SECONDS,
            "socket_connect_timeout": SENTINEL_SECONDS,
            "retry": Retry(NoBackoff(), 0),  # one that is away is asked ten times else, before the next is
        },
    }


_COMMON: dict[str, Any] = {
    # A queue is declared, not guessed: a typo would make a classic queue, and a delayed message to an unbound one is
    # gone.
    "task_create_missing_queues": False,
    # The message is the retry of a dead worker: acknowledged after the commit, put back when a child is killed.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # Retries are decided by the node execution's row, not by the broker.
    "task_acks_on_failure": True,
    "task_acks_on_timeout": True,
    "worker_prefetch_multiplier": 1,  # what is prefetched waits behind a node that runs for minutes
    # True would kill the nodes of a worker that lost its broker; their leases are in Postgres and still good.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "task_ignore_result": True,
    "result_backend": None,
    "task_serializer": "json",
    "accept_content": ["json"],
    "broker_heartbeat": 10,  # a frozen worker is noticed after about 27 s instead of 5 minutes
    "broker_connection_timeout": 5,
    "broker_connection_max_retries": None,
    "broker_connection_retry_on_startup": True,
    "broker_channel_error_retry": True,  # RabbitMQ's consumer_timeout must not end the worker
    "task_publish_retry_policy": {"max_retries": 5, "interval_start": 0, "interval_step": 0.3, "interval_max": 1.5},
    "task_send_sent_event": False,  # twice the cost of all other events together
    "worker_soft_shutdown_timeout": 10.0,  # on SIGQUIT; it sleeps the whole time, so it stays short
    "worker_proc_alive_timeout": 120.0,  # a child imports LangGraph and every graph before it says that it is up
    "beat_scheduler": "celery.beat:Scheduler",  # the stock one keeps a file, and there is nothing to keep
    "worker_hijack_root_logger": False,  # telemetry/logs.py has it
    "worker_redirect_stdouts": False,
    # No time limit of Celery's: threads know none, and a node's deadline is its graph's (`timeout=`) and its lease's.
    "enable_utc": True,
}


def queues_read_by(app: Celery) -> tuple[str, ...]:
    """What a worker's `-Q` and `-X` have left, as graphs name them, without their build."""
    return tuple(split_build(graph_name(name))[0] for name in app.amqp.queues.consume_from)


def declare_all(app: Celery) -> None:
    """Make every queue, the dead letters and the bindings for delayed messages. Idempotent; waits for the broker.

    A delayed message to a queue that no worker has bound yet would be lost in silence, so this runs at deploy and at
    the start of each worker, before anything is consumed.

    raises  OperationalError of kombu when the broker does not answer
    """
    queues: list[Queue] = list(app.amqp.queues.values())
    patience: dict[str, Any] = {"max_retries": 30, "interval_start": 0, "interval_step": 1, "interval_max": 2}
    with app.connection_for_write() as connection:
        connection.ensure_connection(**patience)  # autoretry has the patience of one connect for all its first tries
        # All of it again when the connection breaks in between: a worker that ended by that would be missed until its
        # supervisor has started another, which loads LangGraph and every graph anew.
        declare: Callable[[], object] = connection.autoretry(  # type: ignore[assignment]  # the stubs say None
            lambda channel: _declare(connection, channel, queues), connection.default_channel, **patience
        )
        declare()


def _declare(connection: Connection, channel: Any, queues: Sequence[Queue]) -> None:
    kind = connection.transport.driver_type
    is_amqp = kind == "amqp"
    if is_amqp:
        Queue(DEAD_LETTERS, _DEAD, queue_arguments={"x-queue-type": "quorum"})(channel).declare()
    for queue in queues:
        queue(channel).declare()
        if kind == "sqs":
            sqs.mend_queue(channel, queue.name)
    if is_amqp:
        declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum")
        for queue in queues:
            bind_queue_to_native_delayed_delivery_exchange(connection, queue)


__all__ = ["DEAD_LETTERS", "EXECUTE_NODE", "declare_all", "make_app", "queue_names", "queues_read_by"]
