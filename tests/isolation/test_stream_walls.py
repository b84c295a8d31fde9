"""P5, the second wall, with the others off: what one tenant's runs tell is not read, and not written, by another's.

Redis itself is the judge: a user of it who may reach the keys and channels of one tenant and no others.
"""

import asyncio
from uuid import UUID, uuid4

import pytest
from redis import Redis

from agentfarm.errors import StreamUnavailable
from agentfarm.records import Event
from agentfarm.streaming import log as log_module
from agentfarm.streaming.log import RedisEventLog
from agentfarm.streaming.stream import stream_key
from tests.isolation.redis_users import ACME, GLOBEX

RUN = uuid4()
EVENTS = [Event("custom", b"of a run"), Event("end", b"{}")]


async def read(log: RedisEventLog, tenant_id: UUID) -> list[bytes]:
    async with asyncio.timeout(20):
        return [event.data async for event in log.follow(tenant_id, RUN) if event is not None]


async def test_a_tenant_s_streams_are_written_and_read_with_the_keys_of_that_tenant_alone(url_of_globex: str) -> None:
    log = RedisEventLog(url_of_globex)
    reading = asyncio.create_task(read(log, GLOBEX))

    log.append(GLOBEX, RUN, EVENTS[0])
    await asyncio.to_thread(log.flush)
    await asyncio.to_thread(log.close_run, GLOBEX, RUN, EVENTS[1:])

    assert await reading == [event.data for event in EVENTS]
    await log.aclose()
    log.close()


async def test_the_judge_refuses_another_tenant_s_streams(
    redis_url: str, url_of_globex: str, server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "PAUSES", ())  # it is refused once, and for good
    of_all, of_globex = RedisEventLog(redis_url), RedisEventLog(url_of_globex, connect_seconds=1.0)
    await asyncio.to_thread(of_all.close_run, ACME, RUN, EVENTS)

    with pytest.raises(StreamUnavailable):
        await read(of_globex, ACME)
    await asyncio.to_thread(of_globex.close_run, ACME, uuid4(), EVENTS)

    assert len(server.keys()) == 1
    assert server.xlen(stream_key(ACME, RUN)) == len(EVENTS)
    for log in (of_all, of_globex):
        await log.aclose()
        log.close()
