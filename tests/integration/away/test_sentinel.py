"""Sentinels name another Redis as primary: streams, publishers and workers go to that one, by themselves."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from redis import Redis

from agentfarm.errors import BrokerUnavailable, StreamUnavailable
from agentfarm.queueing.publisher import CeleryPublisher
from agentfarm.records import Event
from agentfarm.streaming.log import FROM_THE_START, RedisEventLog
from tests.farm import free_port, wait_for
from tests.integration.queueing.test_brokers import a_message
from tests.integration.queueing.workers import slow_worker
from tests.integration.streaming.valkey import Valkey
from tests.unit.queueing.conftest import app_on

PASSWORD = "p@ss,w/ord"  # with all that a URL writes in another way
SERVICE = "farm"

SENTINEL = """
port {port}
bind 127.0.0.1
sentinel monitor {service} 127.0.0.1 {primary} 1
sentinel auth-pass {service} {password}
sentinel down-after-milliseconds {service} 1000
sentinel failover-timeout {service} 3000
"""


class Watched:
    """A primary, its replica, and a Sentinel that names the one that takes writes."""

    def __init__(self, folder: Path) -> None:
        for name in ("primary", "replica", "sentinel"):
            (folder / name).mkdir()
        self._primary = Valkey(folder / "primary", password=PASSWORD).start()
        follows = ("--replicaof", f"127.0.0.1 {self._primary.port}")
        self._replica = Valkey(folder / "replica", *follows, password=PASSWORD).start()
        told = SENTINEL.format(port=free_port(), service=SERVICE, primary=self._primary.port, password=PASSWORD)
        configuration = folder / "sentinel" / "sentinel.conf"
        configuration.write_text(told)
        self._sentinel = Valkey(folder / "sentinel", str(configuration), "--sentinel").start()
        wait_for(self._is_watched, what="a Sentinel that knows primary and replica")

    def url(self, database: int = 0) -> str:
        """One of its Sentinels is away."""
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{self._sentinel.port}"
        return f"sentinel://:p%40ss%2Cw%2Ford@{hosts}/{SERVICE}/{database}"

    def lose_primary(self) -> None:
        """Once the replica has all of it: what was not there yet would be lost."""
        with self._primary.client() as client:
            wait_for(lambda: _has_all(client), what="a replica that has all")
        self._primary.kill()

    def stop(self) -> None:
        for server in (self._sentinel, self._replica, self._primary):
            server.kill()

    def _is_watched(self) -> bool:
        with self._sentinel.client() as client:
            primary = client.sentinel_master(SERVICE)
            return primary["num-slaves"] == 1 and not primary["is_sdown"]


def _has_all(client: "Redis") -> bool:
    now = client.info("replication")
    replica = now.get("slave0")
    return bool(replica) and replica["state"] == "online" and replica["offset"] == now["master_repl_offset"]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.stop()


async def read(log: RedisEventLog, run: tuple[UUID, UUID], *, count: int, after: str = FROM_THE_START) -> list[Event]:
    """So many events. As clients do: who is cut off comes back with the last id."""
    events: list[Event] = []
    async with asyncio.timeout(60):
        while len(events) < count:
            with contextlib.suppress(StreamUnavailable):
                async for event in log.follow(*run, after=events[-1].id if events else after):
                    events += [event] if event is not None else []
                    if len(events) == count:
                        break
    return events


async def test_a_stream_goes_on_at_the_new_primary(watched: Watched) -> None:
    run = uuid4(), uuid4()
    log = RedisEventLog(watched.url(), heartbeat_seconds=0.5, connect_seconds=2.0)
    try:
        for number in range(10):
            log.append(*run, Event("custom", b"%d" % number))
        before = await read(log, run, count=10)
        reading = asyncio.create_task(read(log, run, count=10, after=before[-1].id))

        await asyncio.to_thread(watched.lose_primary)
        for number in range(10, 20):
            log.append(*run, Event("custom", b"%d" % number))

        assert [event.data for event in before + await reading] == [b"%d" % number for number in range(20)]
    finally:
        await log.aclose()
        log.close()


def test_messages_go_through_the_new_primary(watched: Watched, tmp_path: Path) -> None:
    app = app_on(watched.url(1))
    with closing(CeleryPublisher(app, "io")) as publisher, slow_worker(watched.url(1), tmp_path, seconds=0) as worker:
        publisher.publish([a_message()])
        worker.await_done()

        watched.lose_primary()

        def publishes() -> bool:
            try:
                publisher.publish([a_message()])
            except BrokerUnavailable:
                return False
            return True

        wait_for(publishes, what="a broker that takes messages again", seconds=60)
        worker.await_done(2)
