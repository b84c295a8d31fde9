"""The servers together: started, stopped, asked for, and the environment that leads the product to them.

What the environment names already (DATABASE_URL, REDIS_URL, CELERY_BROKER_URL) is somebody's own server, unless it is
one of these: it is used and not started.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agentfarm.local.postgres import ADMIN, APP, OPS, OWNER, Postgres
from agentfarm.local.rabbitmq import RabbitMQ
from agentfarm.local.state import FILE, State, empty_folder, locked
from agentfarm.local.valkey import Valkey

Broker = Literal["redis", "rabbitmq"]
Server = Postgres | Valkey | RabbitMQ

DEFAULT_FOLDER = Path(".farm")
DATABASE_NAMES = ("DATABASE_URL", "DATABASE_OWNER_URL", "DATABASE_OPS_URL", "DATABASE_ADMIN_URL")


@dataclass
class Services:
    """The servers below one folder.

    folder  data, logs, state.json
    given   the environment, in which somebody may name servers of their own
    """

    folder: Path
    broker: Broker = "redis"
    given: Mapping[str, str] = field(default_factory=lambda: os.environ)
    postgres_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.folder.expanduser().absolute()  # the path goes to servers that stand elsewhere

    def start(self) -> list[str]:
        """One line a server that is ours: its name and version. Idempotent. Raises Misconfigured."""
        lines = []
        with self._servers() as servers:
            for server in servers:
                server.start()
                lines.append(f"{server.name} {server.describe()}")
        return lines

    def start_again(self) -> list[str]:
        """The names of those that were gone, and run again on the data that they left. Raises Misconfigured."""
        names = []
        with self._servers() as servers:
            for server in servers:
                if _is_gone(server):
                    server.start()
                    names.append(server.name)
        return names

    def stop(self) -> list[str]:
        """The names of those that ran. Data and ports are kept."""
        if not self.folder.exists():
            return []
        with locked(self.folder) as state:
            every = (RabbitMQ(state), Valkey(state), Postgres(state))
            return [server.name for server in every if server.stop()]

    def reset(self) -> None:
        """Stop all, and delete all data. Raises Misconfigured for a folder that is not a farm's."""
        if not self.folder.exists():
            return
        if (self.folder / FILE).exists():
            self.stop()
        empty_folder(self.folder)

    def status(self) -> dict[str, bool]:
        """name → whether it answers; {} where nothing was ever started."""
        if not (self.folder / FILE).exists():
            return {}
        return {server.name: server.is_ready() for server in self._wanted(State(self.folder))}

    def environment(self) -> dict[str, str]:
        """DATABASE_URL and its like, of the servers as they were last started; what was given stays as it is."""
        return {**self._own_environment(State(self.folder)), **self._named()}

    def _own_environment(self, state: State) -> dict[str, str]:
        own: dict[str, str] = {}
        if not self._has("DATABASE_URL"):
            postgres = Postgres(state)
            own["DATABASE_URL"] = postgres.url(APP)
            own["DATABASE_OWNER_URL"] = postgres.url(OWNER)
            own["DATABASE_OPS_URL"] = postgres.url(OPS)
            own["DATABASE_ADMIN_URL"] = postgres.url(ADMIN)
        if not self._has("REDIS_URL"):
            own["REDIS_URL"] = Valkey(state).url(0)
        if not self._has("CELERY_BROKER_URL"):
            if self.broker == "rabbitmq":
                rabbitmq = RabbitMQ(state)
                own["CELERY_BROKER_URL"] = rabbitmq.url()
                own["FLOWER_BROKER_API"] = rabbitmq.management_url()
            else:
                own["CELERY_BROKER_URL"] = Valkey(state).url(1)
        return own

    def _named(self) -> dict[str, str]:
        # The owner of somebody's own database is of no use to ours: these names count together.
        names = (*(DATABASE_NAMES if self._has("DATABASE_URL") else ()), "REDIS_URL", "CELERY_BROKER_URL")
        return {name: self.given[name] for name in names if self._has(name)}

    @contextmanager
    def _servers(self) -> Iterator[list[Server]]:
        with locked(self.folder) as state:
            yield self._wanted(state)

    def _wanted(self, state: State) -> list[Server]:
        wanted: list[Server] = []
        if not self._has("DATABASE_URL"):
            wanted.append(Postgres(state, options=self.postgres_options))
        needs_broker = not self._has("CELERY_BROKER_URL")
        if not self._has("REDIS_URL") or (needs_broker and self.broker == "redis"):
            wanted.append(Valkey(state))
        if needs_broker and self.broker == "rabbitmq":
            wanted.append(RabbitMQ(state))
        return wanted

    def _has(self, name: str) -> bool:
        """Whether somebody names a server of their own there. Ours are named in a shell with what `env` printed."""
        value = self.given.get(name)
        return bool(value) and not any(password in str(value) for password in self._passwords())

    def _passwords(self) -> list[str]:
        """Of the servers that are ours, which nobody else's has."""
        if not (self.folder / FILE).exists():
            return []
        state = State(self.folder)
        of_postgres = state.section("postgres").get("passwords", {}).values()
        others = (state.section(name).get("password") for name in ("valkey", "rabbitmq"))
        return [*of_postgres, *filter(None, others)]


def _is_gone(server: Server) -> bool:
    try:
        return server.pid is None
    except OSError:  # nobody listens
        return True
