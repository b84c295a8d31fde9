"""Carry the planned faults out, each in a thread of its own, and say what each did. One that changed nothing fails."""

import contextlib
import random
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import psycopg
import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from agentfarm.conf import Settings
from agentfarm.errors import BrokerUnavailable, Misconfigured
from agentfarm.messages import ExecuteNode
from agentfarm.queueing.broker import make_app
from agentfarm.queueing.publisher import CeleryPublisher
from tests.chaos.fleet import WEBS, Fleet
from tests.chaos.plan import Planned
from tests.chaos.proxy import Direction, Proxy
from tests.chaos.servers import NAMES, Name, Servers
from tests.farm import wait_for
from tests.in_redis import Moved, read_moved

T = TypeVar("T")

Key = tuple[UUID, UUID, UUID]  # run, checkpoint, execution

#: How long a fault waits for something that it can happen to: a child that is there, a byte on its way.
PATIENCE_SECONDS = 60.0

#: How long a fault that is to hit a worker waits for one that has a node in hand, before it hits an idle one.
IDLE_SECONDS = 10.0

#: Messages that "publish again" publishes, in an order of its own.
AGAIN = 60

#: Where Debian's package libfaketime has it.
FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)


def _nodes(fired: "Fired") -> str:
    return f"{len(fired.held)} in hand"


def find_faketime() -> str | None:
    return next((path for path in FAKETIME if Path(path).exists()), None)


class NotFired(Exception):
    """There was nothing for this fault to happen to."""


@dataclass(slots=True)
class Fired:
    """What became of a planned fault.

    at, over       wall clock
    held           what its victim had at that moment, in Postgres and in Redis
    evidence       what it did; "" while it has not fired
    back_seconds   until what was killed answered again
    """

    planned: Planned
    at: datetime | None = None
    over: datetime | None = None
    held: list[Key] = field(default_factory=list)
    evidence: str = ""
    failure: str = ""
    back_seconds: float | None = None


class Faults:
    """Fires a plan over a fleet. Two faults on one target wait for each other.

    slack  so many times longer a fault waits for its chance, and the end for all to be whole
    """

    def __init__(self, fleet: Fleet, servers: Servers, plan: Sequence[Planned], *, slack: float = 1.0) -> None:
        self.fleet, self.servers, self.slack = fleet, servers, slack
        self.fired = [Fired(planned) for planned in plan]
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._lines: dict[UUID, tuple[UUID, int]] = {}  # thread and epoch of each run that was seen in Redis
        self._timer = threading.Thread(target=self._keep_time, name="faults", daemon=True)

    def start(self) -> None:
        self._timer.start()

    def finish(self, *, seconds: float) -> None:
        """Wait until all have fired and are over, and the farm is whole: nothing is broken any more."""
        end = time.monotonic() + seconds
        self._timer.join(max(0.1, end - time.monotonic()))
        for thread in self._threads:
            thread.join(max(0.1, end - time.monotonic()))
        self._stopping.set()
        for proxy in self.fleet.network.proxies:
            proxy.clear()
        for name in NAMES:
            self.servers.start(name)
        self.fleet.await_whole(seconds=90 * self.slack)

    # -- one after the other

    def _keep_time(self) -> None:
        began = time.monotonic()
        for fired in self.fired:
            if self._stopping.wait(max(0.0, began + fired.planned.at_seconds - time.monotonic())):
                return
            thread = threading.Thread(target=self._fire, args=(fired,), name=fired.planned.kind, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _fire(self, fired: Fired) -> None:
        planned = fired.planned
        with self._locks[planned.target.partition("-")[0] if "-" in planned.target else planned.target]:
            try:
                fired.evidence = self._action(planned.kind)(fired)
            except (NotFired, AssertionError) as error:
                fired.failure = str(error)
            except Exception:  # told in the report, which fails by it
                fired.failure = traceback.format_exc(limit=6)
            fired.over = datetime.now(UTC)

    def _action(self, kind: str) -> Callable[[Fired], str]:
        known: dict[str, Callable[[Fired], str]] = {
            "kill child": self._kill_child,
            "kill worker": self._kill_worker,
            "kill parent": self._kill_parent,
            "kill web": self._kill_process,
            "kill beat": self._kill_process,
            "freeze worker": self._freeze,
            "lose host": self._lose_host,
            "split host": self._split_host,
            "wrong clock": self._wrong_clock,
            "flush broker": self._flush,
            "fill postgres": self._fill,
            "publish again": self._publish_again,
            "lose message": self._lose_message,
        }
        if kind in known:
            return known[kind]
        return self._kill_server if kind.startswith("kill ") else self._weather

    # -- processes

    @contextmanager
    def _with_nodes_in_hand(self, fired: Fired) -> Iterator[list[int]]:
        """The worker's processes, stopped while they hold nodes, or idle after a while; the living go on after it."""
        name = fired.planned.target
        self._found(lambda: self.fleet.is_beating(name), what=f"worker {name}")

        def is_holding(pids: Sequence[int]) -> bool:
            self._note(fired, pids)
            return bool(fired.held)

        with self.fleet.still(name, is_holding, seconds=IDLE_SECONDS) as pids:
            yield pids

    def _kill_child(self, fired: Fired) -> str:
        """Tried again while its parent, or Postgres, comes back from another fault."""
        end = time.monotonic() + PATIENCE_SECONDS * self.slack
        while True:
            try:
                return self._kill_one_child(fired)
            except (NotFired, psycopg.OperationalError):
                if time.monotonic() > end or self._stopping.wait(1.0):
                    raise

    def _kill_one_child(self, fired: Fired) -> str:
        with self._with_nodes_in_hand(fired) as pids:
            registered = {pid for pid, *_ in self.query("SELECT pid FROM farm.worker WHERE ended_at IS NULL")}
            children = sorted(registered & set(pids))
            if not children:
                raise NotFired(f"no child of {fired.planned.target} has a lease")
            random.Random(fired.planned.detail).shuffle(children)
            for pid in children:
                self._note(fired, [pid])
                if fired.held:
                    break
            self.fleet.kill_pid(pid)
        return f"pid {pid}, {_nodes(fired)}"

    def _kill_worker(self, fired: Fired) -> str:
        with self._with_nodes_in_hand(fired):
            pids = self.fleet.kill(fired.planned.target)
        return f"pids {pids}, {_nodes(fired)}"

    def _kill_parent(self, fired: Fired) -> str:
        with self._with_nodes_in_hand(fired):
            pids = self.fleet.kill_parent(fired.planned.target)
        return f"pids {pids}, {_nodes(fired)}"

    def _kill_process(self, fired: Fired) -> str:
        name = fired.planned.target
        self._found(lambda: self.fleet.is_running(name), what=f"process {name}")
        self._note(fired)
        pids = self.fleet.kill(name)
        if name in WEBS:
            began = time.monotonic()
            wait_for(
                lambda: self.fleet.answers(name),
                what=f"an answer of {name}",
                seconds=90 * self.slack,
                every_seconds=0.1,
            )
            fired.back_seconds = time.monotonic() - began
        return f"pids {pids}"

    def _freeze(self, fired: Fired) -> str:
        with self._with_nodes_in_hand(fired) as pids:
            self._stopping.wait(fired.planned.seconds)
            states = {Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] for pid in pids}
        if states - {"Z"} != {"T"}:  # a child that had died before has nobody who would take it off the list
            raise NotFired(f"not all of {pids} stood still: {states}")
        return f"pids {pids}, {_nodes(fired)}"

    def _lose_host(self, fired: Fired) -> str:
        """A worker is gone with its host: no server hears the end of a connection, and what is started there again
        reaches nobody until the host is back."""
        name = fired.planned.target
        with self._ways(name) as ways:
            with self._with_nodes_in_hand(fired):
                for way in ways:
                    way.hold("up", "down")
                pids = self.fleet.kill(name)
            self._stopping.wait(fired.planned.seconds)
        return f"pids {pids}, {_nodes(fired)}"

    def _split_host(self, fired: Fired) -> str:
        """A worker lives, and reaches nobody for longer than its lease."""
        with self._ways(fired.planned.target) as ways:
            before = sum(way.touched for way in ways)
            with self._with_nodes_in_hand(fired) as pids:
                for way in ways:
                    way.hold("up", "down")
            self._stopping.wait(fired.planned.seconds)
            touched = self._found(lambda: sum(way.touched for way in ways) - before, what="traffic")
        return f"pids {pids}, {_nodes(fired)}, {touched} bytes"

    @contextmanager
    def _ways(self, group: str) -> Iterator[Sequence[Proxy]]:
        """From it to all servers; open again when this is left."""
        ways = [self.fleet.proxy(group, server) for server in NAMES]
        try:
            yield ways
        finally:
            for way in ways:
                way.clear()

    def _lose_message(self, fired: Fired) -> str:
        """A worker dies with nodes in hand, and the broker forgets all that it had: only the healer knows of them."""
        with self._locks["broker"]:
            self._found(lambda: self.servers.is_up("broker"), what="the broker, running")
            with self._with_nodes_in_hand(fired):
                lost = self.servers.flush_broker()
                self.fleet.kill(fired.planned.target)
                lost += self.servers.flush_broker()  # RabbitMQ has taken back what its dead consumer had
        return f"{_nodes(fired)}, {lost} lost"

    def _wrong_clock(self, fired: Fired) -> str:
        """The worker dies, and comes back an hour early or late."""
        library, name = find_faketime(), fired.planned.target
        if library is None:
            raise NotFired("there is no libfaketime")
        offset = "+3600" if fired.planned.detail % 2 else "-3600"
        self.fleet.clocks[name] = {
            "LD_PRELOAD": library,
            "FAKETIME": offset,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(Path(__file__).parent / "wrong_clock"),
        }
        return f"{self._kill_worker(fired)}, clock {offset} s from now on"

    # -- servers

    def _kill_server(self, fired: Fired) -> str:
        name = cast("Name", fired.planned.target)
        self._found(lambda: self.servers.is_up(name), what=f"{name}, running")
        self._note(fired)
        pid = self.servers.kill(name)
        self._stopping.wait(fired.planned.seconds)
        began = time.monotonic()
        self.servers.start(name)
        fired.back_seconds = fired.planned.seconds + time.monotonic() - began
        return f"pid {pid}"

    def _flush(self, fired: Fired) -> str:
        self._found(lambda: self.servers.is_up("broker"), what="the broker, running")
        self._note(fired)
        return f"{self.servers.flush_broker()} lost"

    def _fill(self, fired: Fired) -> str:
        """Postgres finds no room for a while. Where that was room for its log, it has ended, and is started again."""
        disk = self.servers.disk
        if disk is None:
            raise NotFired("there is no disk that can be filled")
        self._found(lambda: self.servers.is_up("postgres"), what="postgres, running")
        self._note(fired)
        try:
            filled = disk.fill()
            wait_for(self._finds_no_room, what="a write that finds no room", seconds=PATIENCE_SECONDS * self.slack)
            self._stopping.wait(fired.planned.seconds)
        finally:
            disk.empty()
        began = time.monotonic()
        wait_for(lambda: self._starts("postgres"), what="a Postgres that has room", seconds=PATIENCE_SECONDS)
        fired.back_seconds = fired.planned.seconds + time.monotonic() - began
        return f"{filled >> 20} MiB of ballast"

    def _finds_no_room(self) -> bool:
        try:
            self.query("CREATE TEMPORARY TABLE much AS SELECT repeat('x', 1000) FROM generate_series(1, 10000)")
        except psycopg.OperationalError:  # DiskFull, or a server that has ended over it
            return True
        return False

    def _starts(self, name: Name) -> bool:
        """Whether it is up. It may be recovering."""
        try:
            self.servers.start(name)
        except Misconfigured:
            return False
        return True

    def _publish_again(self, fired: Fired) -> str:
        """Messages of executions that are done, under way and due, each twice, in any order."""
        self._note(fired)
        moved = self._read_moved()
        messages = [*self._messages_in_redis(moved), *self._found(self._messages_in_postgres, what="a node execution")]
        of_redis = sum(message.epoch > 0 for message in messages)
        random.Random(fired.planned.detail).shuffle(messages)

        def published() -> bool:
            settings = self._settings()
            publisher = CeleryPublisher(make_app(settings, ("io", "cpu", "quarantine")), "io")
            try:
                publisher.publish(messages)
            except BrokerUnavailable:
                return False
            finally:
                publisher.close()
            return True

        self._found(published, what="a broker that takes messages")
        return f"{len(messages)} messages, {of_redis} of them of runs in Redis"

    def _messages_in_postgres(self) -> list[ExecuteNode]:
        """Each twice. Of a run that Redis moves, or has moved: as it was sent then. Of one that has been recalled some
        were sent in one way, some in the other, and nobody knows which: once in each.
        """
        sql = (
            "SELECT e.tenant_id, e.run_id, e.checkpoint_id, e.execution_id, r.graph_id, e.node, e.queue,"
            " h.redis_run IS NOT DISTINCT FROM r.run_id FROM farm.node_execution e"
            " JOIN farm.run r USING (tenant_id, run_id)"
            " JOIN farm.thread_head h ON h.tenant_id = r.tenant_id AND h.thread_id = r.thread_id"
            " ORDER BY e.status IN ('leased', 'ready', 'in_redis') DESC, e.created_at DESC LIMIT %s"
        )
        found = []
        for tenant, run, checkpoint, execution, graph, node, queue, is_there in self.query(sql, AGAIN // 2):
            plain = ExecuteNode(tenant, "main", run, checkpoint, execution, graph_id=graph, node=node, queue=queue)
            line = self._lines.get(run)
            if line is None or plain.kind == "start":  # a start is sent before anybody knows where it will be
                found += [plain, plain]
            else:
                there = plain.in_redis(*line)
                found += [there, there if is_there else plain]
        return found

    def _messages_in_redis(self, moved: Sequence[Moved]) -> list[ExecuteNode]:
        """Each twice: of executions of which Postgres may not have heard yet."""
        graphs = dict(self._found(lambda: self.query("SELECT run_id, graph_id FROM farm.run"), what="a run"))
        sent = [
            ExecuteNode(run.tenant_id, "main", run.run_id, run.checkpoint_id, one.execution_id,
                        graphs.get(run.run_id, ""), one.node, one.queue).in_redis(run.thread_id, run.epoch)
            for run in moved
            for one in run.executions
            if one.execution_id != run.run_id
        ]  # fmt: skip
        return sent[: AGAIN // 2] * 2

    def _settings(self) -> Settings:
        urls = {name: SecretStr(url) for name, url in self.servers.direct_urls.items()}
        return Settings(
            database_url=urls["DATABASE_URL"],
            redis_url=urls["REDIS_URL"],
            broker_url=urls["CELERY_BROKER_URL"],
            secret_key=SecretStr("chaos"),
        )

    # -- network

    def _weather(self, fired: Fired) -> str:
        group, _, server = fired.planned.target.partition("-")
        proxy, kind = self.fleet.proxy(group, server), fired.planned.kind.rpartition(" ")[0]
        self._found(lambda: self.fleet.is_beating(group), what=f"worker {group}")
        self._note(fired, self.fleet.pids(group))
        before, detail = proxy.touched, fired.planned.detail
        directions: tuple[Direction, ...] = ("up", "down")
        try:
            if kind == "cut":
                self._found(lambda: self._has_cut(proxy), what="an open connection")  # SQS has none between questions
            elif kind == "latency":
                proxy.slow(0.02 + detail % 100 / 1000)
            else:
                if kind == "one way":
                    directions = (directions[detail % 2],)
                proxy.hold(*directions)
            self._stopping.wait(fired.planned.seconds)
            touched = self._found(lambda: proxy.touched - before, what="traffic")
        except AssertionError as error:
            raise NotFired(f"nothing went from {group} to {server}, or back") from error
        finally:
            proxy.clear()
        what = f" ({directions[0]})" if kind == "one way" else ""
        return f"{touched} {'connections' if kind == 'cut' else 'bytes'}{what}"

    def _has_cut(self, proxy: Proxy) -> bool:
        before = proxy.touched
        proxy.cut()
        return proxy.touched > before

    # -- facts

    def _note(self, fired: Fired, pids: Sequence[int] | None = None) -> None:
        """The moment, and what the victims hold; None: what anybody holds.

        The moment comes first: what a living victim commits before it is asked must not look as if it never went on.
        """
        fired.at = datetime.now(UTC)
        try:
            fired.held = [*self._held_in_postgres(pids), *self._held_in_redis(pids)]
        except psycopg.OperationalError:
            fired.held = []  # Postgres is down by another fault: what was held then cannot be told

    def _held_in_postgres(self, pids: Sequence[int] | None) -> list[Key]:
        sql = (
            "SELECT e.run_id, e.checkpoint_id, e.execution_id FROM farm.node_execution e"
            " JOIN farm.worker w USING (worker) WHERE e.status = 'leased' AND (%s::int[] IS NULL OR w.pid = ANY (%s))"
        )
        return [
            (run, at, execution) for run, at, execution in self.query(sql, pids and list(pids), pids and list(pids))
        ]

    def _held_in_redis(self, pids: Sequence[int] | None) -> list[Key]:
        """Of the runs that Postgres says Redis moves: a Redis may have more, of a line that counts no longer."""
        sql = "SELECT worker FROM farm.worker WHERE %s::int[] IS NULL OR pid = ANY (%s)"
        workers = {worker for (worker,) in self.query(sql, pids and list(pids), pids and list(pids))}
        counting = set(self.query("SELECT redis_run, epoch FROM farm.thread_head WHERE redis_run IS NOT NULL"))
        return [
            (moved.run_id, moved.checkpoint_id, one.execution_id)
            for moved in self._read_moved()
            if moved.is_open and (moved.run_id, moved.epoch) in counting
            for one in moved.executions
            if one.worker in workers
        ]

    def _read_moved(self) -> list[Moved]:
        """What Redis has of runs; [] while it is down by another fault. Their epochs are kept: see `_publish_again`."""
        url = self.servers.streams.url()
        with contextlib.closing(
            redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, retry=Retry(NoBackoff(), 0))
        ) as client:
            try:
                found = read_moved(client)
            except redis.RedisError:
                return []
        self._lines.update((moved.run_id, (moved.thread_id, moved.epoch)) for moved in found)
        return found

    def _found(self, fact: Callable[[], T], *, what: str) -> T:
        """The first truthy answer, also when Postgres is away for a while by another fault."""

        def asked() -> T | None:
            try:
                return fact()
            except psycopg.OperationalError:
                return None

        found = wait_for(asked, what=what, seconds=PATIENCE_SECONDS * self.slack, every_seconds=0.1)
        assert found is not None
        return found

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.servers.root_url, autocommit=True, connect_timeout=3) as connection:
            return connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]  # literal SQL of ours
