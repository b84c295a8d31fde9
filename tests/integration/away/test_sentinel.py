"""Sentinels name another Redis as primary: streams, publishers and workers go to that one, by themselves."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agentfarm.errors import BrokerUnavailable, StreamUnavailable
from agentfarm.queueing.publisher import CeleryPublisher
from agentfarm.records import Event
from agentfarm.streaming.log import FROM_THE_START, RedisEventLog
from tests.farm import wait_for
from tests.integration.queueing.test_brokers import a_message
from tests.integration.queueing.workers import slow_worker
from tests.integration.streaming.watched import Watched
from tests.unit.queueing.conftest import app_on


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
