"""A farm to be measured: servers, two workers, web and beat, below a folder of its own, ended when the measuring is.

What lies behind `agentfarm.conf` is imported inside functions here: settings are read from the environment, which is
known only when the servers are up.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit
from uuid import UUID

from agentfarm.local.postgres import Postgres
from agentfarm.local.processes import free_port
from agentfarm.local.rabbitmq import RabbitMQ
from agentfarm.local.services import Broker, Services
from agentfarm.local.state import State
from agentfarm.local.valkey import Valkey
from benchmarks import cpu
from benchmarks.processes import Child, run_once, wait_for
from benchmarks.watcher import Watcher

if TYPE_CHECKING:
    from langgraph_sdk.client import SyncLangGraphClient

    from benchmarks.driver import Driver
    from benchmarks.stock import StockProcesses, StockRunner

ROOT = Path(__file__).resolve().parents[1]
TENANT = "demo"
WORKERS = 2
SLOTS = 8
#: A process imports all of the product and its graphs; on a machine that has much else to do, that takes a while.
START_SECONDS = 180.0

#: What both the farm's workers and the bare ones are started with, beside their queue and their name.
WORKER_OPTIONS = ("-P", "threads", "-c", str(SLOTS), "--without-gossip", "--without-mingle", "-l", "WARNING")


class BenchFarm:
    """Enter it to have it; leave it, and every process and server that it started is gone.

    milliseconds_away  how far Postgres is from all but the watcher, each way
    """

    def __init__(self, folder: Path, *, broker: Broker, milliseconds_away: float = 0.0) -> None:
        self.folder, self.broker, self.milliseconds_away = folder, broker, milliseconds_away
        # Its own servers whatever the environment names: a benchmark fills what it runs over, and is no guest there.
        self.services = Services(folder / "servers", broker=broker, given={})
        self.exits = ExitStack()
        self.environment: dict[str, str] = {}
        self.tenant_id, self.key = UUID(int=0), ""
        self.port = 0
        self.workers: list[Child] = []
        self.is_worker = False

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.exits:
            self.exits.callback(self.services.stop)
            print("\n".join(self.services.start()), flush=True)
            self.port = free_port()
            self.environment = self._environment(self._moved_away(self.services.environment()))
            os.environ.update(self.environment)
            self._manage("migrate", "--verbosity", "0")
            setup = json.loads(self._manage("farm_setup", "--json", "--secrets", str(self.folder / "secrets.json")))
            tenant = next(each for each in setup["tenants"] if each["slug"] == TENANT)
            self.tenant_id, self.key = UUID(tenant["id"]), tenant["key"]
            self._start_processes()
            self.exits = self.exits.pop_all()  # all went well: what was started stays until __exit__
        return self

    def __exit__(self, *_: object) -> None:
        self.exits.close()

    # -- what the benchmarks use

    @cached_property
    def watcher(self) -> Watcher:
        watcher = Watcher(self.environment["DATABASE_ADMIN_URL"], self.tenant_id)
        self.exits.callback(watcher.close)
        return watcher

    @cached_property
    def driver(self) -> "Driver":
        from agentfarm.tenancy import Tenant
        from agentfarm.wiring import farm
        from benchmarks.driver import Driver

        return Driver(farm(), Tenant(self.tenant_id, TENANT), self.watcher)

    @cached_property
    def client(self) -> "SyncLangGraphClient":
        from langgraph_sdk import get_sync_client

        return get_sync_client(url=self.url, api_key=self.key)

    @cached_property
    def stock(self) -> "StockProcesses":
        from benchmarks.stock import StockProcesses, prepare

        prepare(self.environment["DATABASE_OWNER_URL"])
        stock = StockProcesses(self.environment["DATABASE_OWNER_URL"])
        self.exits.callback(stock.stop)
        return stock

    @cached_property
    def stock_runner(self) -> "StockRunner":
        from benchmarks.stock import StockRunner, prepare

        prepare(self.environment["DATABASE_OWNER_URL"])
        runner = StockRunner(self.environment["DATABASE_OWNER_URL"])
        self.exits.callback(runner.connection.close)
        return runner

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_of(self) -> Mapping[str, Callable[[], Sequence[int]]]:
        """{kind of process: asks for its pids}. Redis, which has streams and moves runs, where it is not the broker."""
        state = State(self.services.folder)
        postgres, redis = Postgres(state), Valkey(state)
        pids: dict[str, Callable[[], Sequence[int]]] = {
            "worker": lambda: [worker.pid for worker in self.workers],
            "postgres": lambda: cpu.family(_pid(postgres)),
        }
        if self.broker == "redis":
            return {**pids, "broker": lambda: cpu.family(_pid(redis))}
        rabbitmq = RabbitMQ(state)
        return {**pids, "broker": lambda: cpu.family(_pid(rabbitmq)), "redis": lambda: cpu.family(_pid(redis))}

    def start_bare_workers(self) -> None:
        """Workers of benchmarks/bare.py: as many, with the same options."""
        for number in range(1, WORKERS + 1):
            self._start(f"bare-{number}", *self._celery("benchmarks.bare"), "-Q", "bench", "-n", f"bare-{number}@%h")

    def have_workers(self, count: int) -> None:
        """As many as that, from now on."""
        while len(self.workers) > count:
            self.workers.pop().stop()
        while len(self.workers) < count:
            self.workers.append(self._start_worker(len(self.workers) + 1))
        self._await_workers()

    def become_worker(self) -> None:
        """This process instead of the workers: with a lease of its own, since who claims must beat."""
        from agentfarm import wiring

        if self.is_worker:
            return
        self.is_worker = True
        for worker in self.workers:
            worker.stop()
        self.__dict__.pop("driver", None)  # its stores were made without a lease
        wiring.stop_worker()
        wiring.start_worker(f"benchmarks@{socket.gethostname()}/{os.getpid()}", run_async=asyncio.run)
        self.exits.callback(wiring.stop_worker)

    # -- starting it

    def _environment(self, servers: Mapping[str, str]) -> dict[str, str]:
        return {
            **os.environ,
            **servers,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "agentfarm.settings",
            "AGENTFARM_CONFIG": str(ROOT / "benchmarks" / "langgraph.json"),
            "AGENTFARM_SECRET_KEY": os.environ.get("AGENTFARM_SECRET_KEY") or self._secret_key(),
            "PORT": str(self.port),
            "LANGGRAPH_STRICT_MSGPACK": "true",
            "LOG_LEVEL": "WARNING",
        }

    def _moved_away(self, servers: Mapping[str, str]) -> Mapping[str, str]:
        """The same addresses, through a process that takes its time."""
        if not self.milliseconds_away:
            return servers
        port = urlsplit(servers["DATABASE_URL"]).port
        command = ("-m", "benchmarks.distance", "--to", str(port), "--milliseconds", str(self.milliseconds_away))
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        (self.folder / "distance.log").unlink(missing_ok=True)  # it is to tell of this one
        away = self._start("distance", sys.executable, *command)
        wait_for(lambda: away.log.read_text().strip() != "", "a way to Postgres", within_seconds=20, children=[away])
        told = away.log.read_text().split()[-1]
        through = ("DATABASE_URL", "DATABASE_OWNER_URL", "DATABASE_OPS_URL")
        return {
            name: url.replace(f":{port}/", f":{told}/") if name in through else url for name, url in servers.items()
        }

    def _secret_key(self) -> str:
        """Kept beside the data: keys that an earlier run made are hashed with it."""
        path = self.folder / "secret_key"
        if not path.exists():
            path.touch(0o600)
            path.write_text(secrets.token_urlsafe(32), "utf-8")
        return path.read_text("utf-8")

    def _start_processes(self) -> None:
        web = self._start("web", sys.executable, "manage.py", "serve", "--host", "127.0.0.1", "--port", str(self.port))
        self.workers += [self._start_worker(number) for number in range(1, WORKERS + 1)]
        self._start("beat", sys.executable, "-m", "celery", "-A", "workers", "beat", "-l", "WARNING")
        wait_for(self._answers, f"{self.url}/ok answers", within_seconds=START_SECONDS, children=[web])
        self._await_workers()

    def _start_worker(self, number: int) -> Child:
        return self._start(f"worker-{number}", *self._celery("workers"), "-Q", "io", "-n", f"worker-{number}@%h")

    def _await_workers(self) -> None:
        wait_for(
            lambda: all(self.watcher.knows(worker.pid) for worker in self.workers),
            "the workers are in farm.worker",
            within_seconds=START_SECONDS,
            children=self.workers,
        )

    def _celery(self, app: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "celery", "-A", app, "worker", *WORKER_OPTIONS)

    def _start(self, name: str, *command: str) -> Child:
        child = Child(name, command, folder=self.folder, root=ROOT, environment=self.environment)
        child.start()
        self.exits.callback(child.stop)
        return child

    def _manage(self, *command: str) -> str:
        return run_once((sys.executable, "manage.py", *command), root=ROOT, environment=self.environment)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ok", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):  # not yet listening
            return False


def _pid(server: Postgres | RabbitMQ | Valkey) -> int:
    if server.pid is None:
        raise RuntimeError(f"{server.name} is not running")
    return server.pid
