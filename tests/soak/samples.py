"""What a farm and its servers use at one moment, read from outside of them: /proc, Postgres' views, Redis, the broker.

A server that is away when it is asked (a fault is under way) is left out of that sample, and nothing else is.
"""

import contextlib
import http.client
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
import redis

from agentfarm.local.rabbitmq import VIRTUAL_HOST, RabbitMQ
from agentfarm.local.valkey import Valkey
from tests.chaos.fleet import PREFORK, Fleet
from tests.chaos.servers import Servers
from tests.farm import children
from tests.soak.verdict import Tolerance

MEGA: Final = 1 << 20
PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that is measured, of many processes, tables or keys.

    tolerance   None: shown and not judged, for the reason in `note`
    is_process    its series begin with a process, and warm up with it
    follows_load  retention keeps what came in the last minutes: it grows with the turns a minute, and may
    """

    name: str
    unit: str
    tolerance: Tolerance | None
    note: str = ""
    is_process: bool = False
    follows_load: bool = False


_PROCESS = (
    Kind("memory", "MB RSS", Tolerance(8.0), "of a process of the farm", is_process=True),
    Kind("own memory", "MB PSS", Tolerance(8.0), "pages that children share are counted once", is_process=True),
    Kind("descriptors", "open files", Tolerance(3.0), is_process=True),
    Kind("threads", "OS threads", Tolerance(2.0), is_process=True),
)
_SERVER = (
    Kind(
        "server memory",
        "MB",
        Tolerance(16.0, 0.1),
        "of a server with its children; of Postgres what is not shared buffers",
        is_process=True,
    ),
    Kind("server descriptors", "open files", Tolerance(20.0, 0.1), is_process=True),
    Kind("connections", "by application", Tolerance(3.0, 0.1), "pg_stat_activity"),
    Kind("oldest transaction", "s", Tolerance(30.0)),
    Kind("table size", "MB with indexes and TOAST", Tolerance(2.0, 0.1), follows_load=True),
    Kind(
        "dead rows",
        "rows",
        Tolerance(3000.0, 0.2),
        "not yet vacuumed; a crash of Postgres resets the count",
        follows_load=True,
    ),
    Kind("rows", "rows, estimated", Tolerance(300.0, 0.1), follows_load=True),
    Kind("kept rows", "rows", None, "workers that ended are kept for a week, idempotency keys for a day"),
    Kind("kept size", "MB", None, "of the same"),
    Kind("database size", "MB", None, "what is kept is in it"),
    Kind("WAL on disk", "MB", Tolerance(64.0, 0.5), "bounded by max_wal_size"),
    Kind("replication slots", "slots", Tolerance(0.0)),
    Kind("WAL written", "MB since the start", None, "it grows by what it is; its slope is the write rate"),
    Kind("Redis memory", "MB", Tolerance(4.0, 0.1), "used_memory", follows_load=True),
    Kind("Redis clients", "connections", Tolerance(5.0, 0.1)),
    Kind("Redis keys", "keys by pattern", Tolerance(30.0, 0.1), follows_load=True),
    Kind("Redis expiry", "keys without an end, by pattern", Tolerance(10.0, 0.1)),
    Kind("queue", "messages", Tolerance(20.0)),
    Kind("RabbitMQ", "connections, channels, queues", Tolerance(5.0)),
)
_LOAD = (
    Kind("turn", "s, median", None, "what else the machine does is in it"),
    Kind("turns", "since the start", None),
    Kind("unfinished runs", "runs", Tolerance(10.0)),
)
KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in (*_PROCESS, *_SERVER, *_LOAD)}

#: What the farm keeps for longer than a soak lasts (sql/heal.sql), so that it can only grow there.
KEPT_TABLES: Final = frozenset({"farm.worker", "farm.idempotency_key"})

#: What is listed only where there is some.
COUNTED: Final = frozenset({"queue", "Redis keys", "Redis expiry", "connections"})

_NAMES = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|\d+")

Sample = dict[tuple[str, str], float]  # (kind, series) → value


@dataclass
class Sampler:
    """gaps  server → samples in which it did not answer"""

    fleet: Fleet
    servers: Servers
    gaps: Counter[str] = field(default_factory=Counter)
    _seen: set[tuple[str, str, str]] = field(default_factory=set)
    _wal_start: float | None = None

    def take(self) -> Sample:
        sample: Sample = {}
        sample.update(self._processes())
        self._ask("postgres", self._postgres, sample)
        self._ask("streams", lambda: _redis(self.servers.streams, 0, "streams"), sample)
        if isinstance(self.servers.queue, RabbitMQ):
            self._ask("broker", self._rabbitmq, sample)
        else:
            self._ask("broker", self._redis_broker, sample)
        return sample

    def _ask(self, server: str, ask: Callable[[], Iterator[tuple[tuple[str, str], float]]], sample: Sample) -> None:
        try:
            found = dict(ask())
        except (psycopg.OperationalError, redis.RedisError, OSError, http.client.HTTPException):
            self.gaps[server] += 1
            return
        # An empty list of Redis' is no key, and a pool without connections no row: that is 0, and not unknown.
        self._seen |= {(server, kind, name) for kind, name in found if kind in COUNTED}
        sample.update({(kind, name): 0.0 for which, kind, name in self._seen if which == server})
        sample.update(found)

    # -- processes

    def _processes(self) -> Iterator[tuple[tuple[str, str], float]]:
        for name, process in list(self.fleet.running.items()):
            pids = [process.pid, *children(process.pid)]
            for pid in pids:
                # Only prefork's pool has children that live on; what web or a thread worker may run besides is brief.
                if pid != process.pid and name != PREFORK:
                    continue
                yield from _process(name if pid == process.pid else f"{name}'s child", pid)
        servers = {"postgres": self.servers.postgres, "streams": self.servers.streams, "broker": self.servers.queue}
        for server, one in servers.items():
            if (pid := one.pid) is not None:
                yield from _server(server, pid)

    # -- Postgres

    def _postgres(self) -> Iterator[tuple[tuple[str, str], float]]:
        with psycopg.connect(self.servers.root_url, autocommit=True, connect_timeout=3) as connection:

            def rows(sql: str) -> list[tuple[Any, ...]]:
                return connection.execute(sql).fetchall()  # type: ignore[arg-type]  # literal SQL of ours

            for application, count in rows(
                "SELECT coalesce(nullif(application_name, ''), usename, 'connecting'), count(*) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1"
            ):
                yield ("connections", application), count
            [(oldest,)] = rows(
                "SELECT coalesce(extract(epoch FROM max(now() - xact_start)), 0) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            yield ("oldest transaction", "all"), float(oldest)
            for table, size, dead, live in rows(
                "SELECT schemaname || '.' || relname, pg_total_relation_size(relid), n_dead_tup, n_live_tup"
                " FROM pg_stat_user_tables WHERE schemaname = 'farm'"
            ):
                is_kept = table in KEPT_TABLES
                yield ("kept size" if is_kept else "table size", table), size / MEGA
                yield ("kept rows" if is_kept else "rows", table), live
                yield ("dead rows", table), dead
            [(size, wal, written, slots)] = rows(
                "SELECT pg_database_size(current_database()), (SELECT sum(size) FROM pg_ls_waldir()),"
                " pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'), (SELECT count(*) FROM pg_replication_slots)"
            )
            if self._wal_start is None:
                self._wal_start = float(written)
            yield ("database size", "all"), size / MEGA
            yield ("WAL on disk", "all"), float(wal) / MEGA
            yield ("WAL written", "all"), (float(written) - self._wal_start) / MEGA
            yield ("replication slots", "all"), slots
            [(open_runs,)] = rows("SELECT count(*) FROM farm.run WHERE finished_at IS NULL")
            yield ("unfinished runs", "all"), open_runs

    # -- the broker

    def _redis_broker(self) -> Iterator[tuple[tuple[str, str], float]]:
        assert isinstance(self.servers.queue, Valkey)
        yield from _redis(self.servers.queue, 1, "broker")
        sizes: Counter[str] = Counter()
        with _client(self.servers.queue, 1) as client:
            measures: Mapping[str, Callable[[str], Any]] = {
                "list": client.llen, "zset": client.zcard, "hash": client.hlen, "set": client.scard,
            }  # fmt: skip
            for key in client.scan_iter(count=1000):
                if measure := measures.get(client.type(key)):  # type: ignore[arg-type]  # its stubs are both clients'
                    sizes[_pattern(key)] += int(measure(key))
        for name, size in sizes.items():
            yield ("queue", name), size

    def _rabbitmq(self) -> Iterator[tuple[tuple[str, str], float]]:
        node = self.servers.queue
        assert isinstance(node, RabbitMQ)
        queues = node._call("GET", f"queues/{quote(VIRTUAL_HOST, safe='')}") or []
        sizes: Counter[str] = Counter()
        for queue in queues:
            sizes[_pattern(queue["name"])] += int(queue.get("messages", 0))
        for name, size in sizes.items():
            yield ("queue", name), size
        totals = (node._call("GET", "overview") or {}).get("object_totals", {})
        for name in ("connections", "channels", "queues"):
            yield ("RabbitMQ", name), float(totals.get(name, 0))


# --------------------------------------------------------------------------- one process


def _process(name: str, pid: int) -> Iterator[tuple[tuple[str, str], float]]:
    """Nothing, of one that ended while it was looked at."""
    series = f"{name} {pid}"
    with contextlib.suppress(OSError):
        memory = _memory(pid)
        values = {
            "memory": memory["Rss"] / 1024,
            "own memory": memory["Pss"] / 1024,
            "descriptors": sum(1 for _ in (PROC / str(pid) / "fd").iterdir()),
            "threads": sum(1 for _ in (PROC / str(pid) / "task").iterdir()),
        }
        yield from (((kind, series), value) for kind, value in values.items())


def _server(name: str, pid: int) -> Iterator[tuple[tuple[str, str], float]]:
    own, descriptors = 0.0, 0
    for each in [pid, *children(pid)]:
        with contextlib.suppress(OSError):
            own += _memory(each)["Pss_Anon"] / 1024
            descriptors += sum(1 for _ in (PROC / str(each) / "fd").iterdir())
    yield ("server memory", f"{name} {pid}"), own
    yield ("server descriptors", f"{name} {pid}"), descriptors


def _memory(pid: int) -> dict[str, int]:
    """Of smaps_rollup, in kB. Raises OSError."""
    lines = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


# --------------------------------------------------------------------------- one Redis


@contextlib.contextmanager
def _client(server: Valkey, database: int) -> Iterator[redis.Redis]:
    url = server.url(database)
    client = redis.Redis.from_url(url, decode_responses=True, socket_timeout=5, socket_connect_timeout=3)
    with contextlib.closing(client):
        yield client


def _redis(server: Valkey, database: int, name: str) -> Iterator[tuple[tuple[str, str], float]]:
    with _client(server, database) as client:
        info: dict[str, Any] = client.info()  # type: ignore[assignment]  # its stubs are both clients'
        yield ("Redis memory", name), info["used_memory"] / MEGA
        yield ("Redis clients", name), info["connected_clients"]
        keys, endless = Counter[str](), Counter[str]()
        for some in _batches(list(client.scan_iter(count=1000)), 500):
            with client.pipeline(transaction=False) as pipe:
                for key in some:
                    pipe.ttl(key)
                ends = pipe.execute()
            for key, end in zip(some, ends, strict=True):
                keys[_pattern(key)] += 1
                endless[_pattern(key)] += end == -1
        for pattern, count in keys.items():
            yield ("Redis keys", f"{name} {pattern}"), count
            yield ("Redis expiry", f"{name} {pattern}"), endless[pattern]


def _pattern(key: str) -> str:
    """ "t:0af…:run:77b…:events" → "t:*:run:*:events"."""
    return _NAMES.sub("*", key)


def _batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
