"""The farm's own PostgreSQL, Redis for streams, and broker: killed with -9, started again on the data that is left.

Each stands alone below the folder, so that the streams can die without the broker, and the other way round.
"""

import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import boto3
import redis

from agentfarm.local.postgres import ADMIN, APP, DATABASE, OPS, OWNER, ROOT, Postgres
from agentfarm.local.processes import wait_gone
from agentfarm.local.rabbitmq import VIRTUAL_HOST, RabbitMQ
from agentfarm.local.state import State, make_folder
from agentfarm.local.valkey import Valkey
from tests.chaos.disk import SmallDisk
from tests.sqs import KEYS, Moto

Broker = Literal["redis", "rabbitmq", "sqs"]
Name = Literal["postgres", "streams", "broker"]

NAMES: tuple[Name, ...] = ("postgres", "streams", "broker")

#: What a crash of the machine would lose; here processes die, never the machine.
POSTGRES_OPTIONS = {"fsync": "off", "full_page_writes": "off", "max_connections": "400"}

#: What is kept of the log of a server whose disk is small.
SMALL_LOG = {"min_wal_size": "32MB", "max_wal_size": "128MB"}


@dataclass
class Servers:
    """folder  data, logs and passwords of the three
    disk    that of Postgres (its part of the folder), where it can be filled
    """

    folder: Path
    broker: Broker
    disk: SmallDisk | None = None

    def __post_init__(self) -> None:
        options = POSTGRES_OPTIONS | SMALL_LOG if self.disk else POSTGRES_OPTIONS
        self.postgres = Postgres(self._state("postgres"), options=options)
        self.streams = Valkey(self._state("streams"))
        self.queue = self._broker()

    def _broker(self) -> Valkey | RabbitMQ | Moto:
        state = self._state("broker")
        if self.broker == "sqs":
            return Moto(state.folder)
        return RabbitMQ(state) if self.broker == "rabbitmq" else Valkey(state)

    def _state(self, name: str) -> State:
        folder = self.folder / name
        make_folder(folder)
        return State(folder)

    def start(self, name: Name) -> None:
        """Idempotent. Raises Misconfigured, which ends with the last lines of the server's log."""
        self._server(name).start()

    def stop(self) -> None:
        for name in NAMES:
            server = self._server(name)
            if isinstance(server, Moto):
                server.kill()
            else:
                server.stop()

    def kill(self, name: Name) -> int:
        """kill -9, and the pid that it had."""
        server = self._server(name)
        pid = server.pid
        if pid is None:
            raise RuntimeError(f"{server.name} does not run")
        os.kill(pid, signal.SIGKILL)
        if not wait_gone(pid, seconds=10):
            raise RuntimeError(f"{server.name} (pid {pid}) outlived kill -9")
        if isinstance(server, RabbitMQ):
            server._end_epmd()  # a daemon of Erlang's that would keep the node's port and name
        return pid

    def is_up(self, name: Name) -> bool:
        return self._server(name).is_ready()

    def port(self, name: Name) -> int:
        server = self._server(name)
        return int(server.facts["ports"]["amqp"]) if isinstance(server, RabbitMQ) else server.port

    def flush_broker(self) -> int:
        """Empty it, and the number of messages (Redis: keys, SQS: queues) that were lost."""
        if isinstance(self.queue, RabbitMQ):
            return self._purge(self.queue)
        if isinstance(self.queue, Moto):
            queues = len(_sqs(self.queue).list_queues().get("QueueUrls", []))
            self.queue.empty()
            return queues
        with contextlib.closing(redis.Redis.from_url(self.queue.url(1))) as client:
            keys = int(client.dbsize())  # type: ignore[arg-type]  # its stubs are those of both clients
            client.flushall()
        return keys

    def _purge(self, node: RabbitMQ) -> int:
        host = quote(VIRTUAL_HOST, safe="")
        queues = [queue["name"] for queue in node._call("GET", f"queues/{host}") or []]
        lost = 0
        for name in queues:
            about = node._call("GET", f"queues/{host}/{quote(name, safe='')}") or {}
            lost += int(about.get("messages_ready", 0))
            node._call("DELETE", f"queues/{host}/{quote(name, safe='')}/contents")
        return lost

    def urls(self, ports: Mapping[Name, int]) -> dict[str, str]:
        """The environment of a process that reaches the servers through these ports."""
        direct, streams, queue = self.port("postgres"), self.port("streams"), self.port("broker")
        database = {
            "DATABASE_URL": APP, "DATABASE_OWNER_URL": OWNER, "DATABASE_OPS_URL": OPS, "DATABASE_ADMIN_URL": ADMIN,
        }  # fmt: skip
        return {
            **{name: _at(self.postgres.url(role), direct, ports["postgres"]) for name, role in database.items()},
            "REDIS_URL": _at(self.streams.url(0), streams, ports["streams"]),
            "CELERY_BROKER_URL": _at(self._queue_url(), queue, ports["broker"]),
        }

    def _queue_url(self) -> str:
        if isinstance(self.queue, Moto):
            return self.queue.url
        return self.queue.url() if isinstance(self.queue, RabbitMQ) else self.queue.url(1)

    @property
    def root_url(self) -> str:
        """Of the superuser, past every proxy: for the invariants."""
        return self.postgres.url(ROOT, DATABASE)

    @property
    def direct_urls(self) -> dict[str, str]:
        return self.urls({name: self.port(name) for name in NAMES})

    def _server(self, name: Name) -> Postgres | Valkey | RabbitMQ | Moto:
        return {"postgres": self.postgres, "streams": self.streams, "broker": self.queue}[name]


def _at(url: str, port: int, other: int) -> str:
    return url.replace(f"@127.0.0.1:{port}", f"@127.0.0.1:{other}")


def _sqs(server: Moto) -> Any:
    keys = {name.lower(): value for name, value in KEYS.items() if name != "AWS_DEFAULT_REGION"}
    region = KEYS["AWS_DEFAULT_REGION"]
    return boto3.client("sqs", endpoint_url=f"http://127.0.0.1:{server.port}", region_name=region, **keys)  # type: ignore[call-overload]
