"""The event log on a real server: what is appended is read, in order, once, by everybody, from any point on."""

import asyncio
import multiprocessing
import os
import random
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

import pytest

from agentfarm.errors import BadRequest, StreamUnavailable
from agentfarm.records import Event
from agentfarm.redis_clients import Script
from agentfarm.streaming import writer as writer_module
from agentfarm.streaming.log import FROM_NOW, FROM_THE_START, PAGE_BYTES, RedisEventLog
from agentfarm.streaming.stream import APPEND, Batch, stream_key
from agentfarm.streaming.writer import MAX_BATCH_BYTES, send
from tests.farm import wait_for
from tests.integration.streaming.blackhole import blackhole
from tests.integration.streaming.valkey import Valkey
from tests.tap import RedisListener, Tap

MakeLog = Callable[..., RedisEventLog]

END = Event("end", b'{"status":"success"}')


def told(number: int) -> Event:
    return Event("custom", b"%d" % number)


async def read(log: RedisEventLog, run: tuple[UUID, UUID], *, after: str = FROM_THE_START) -> list[Event]:
    """All events until the end, without the heartbeats."""
    async with asyncio.timeout(20):
        return [event async for event in log.follow(*run, after=after) if event is not None]


def data(events: list[Event]) -> list[bytes]:
    return [event.data for event in events]


@pytest.fixture
def run() -> tuple[UUID, UUID]:
    return uuid4(), uuid4()


@pytest.fixture(autouse=True)
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower's occasional look at its stream would, in the end, make up for a bell that never rings."""
    monkeypatch.setattr("agentfarm.streaming.log.BEATS_A_LOOK", 10**9)


async def test_a_follower_gets_all_events_in_order_and_ends_with_the_run(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(shared_valkey)
    reading = asyncio.create_task(read(log, run))

    for number in range(1000):
        log.append(*run, told(number))
    log.flush()
    log.close_run(*run, [END])

    events = await reading
    assert data(events) == [b"%d" % number for number in range(1000)] + [END.data]
    assert len({event.id for event in events}) == 1001


async def test_events_come_while_the_run_goes_on_not_at_its_end(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(shared_valkey)
    following = log.follow(*run)

    seen = []
    for number in range(5):
        log.append(*run, told(number))
        while (event := await asyncio.wait_for(anext(following), 5)) is None:
            pass
        seen.append(event.data)

    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    await following.aclose()


async def test_a_second_process_reads_what_the_first_wrote(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    worker, web = make_log(shared_valkey), make_log(shared_valkey)
    readings = [asyncio.create_task(read(web, run)) for _ in range(20)]

    worker.append(*run, told(1))
    worker.flush()
    worker.close_run(*run, [END])

    assert [data(events) for events in await asyncio.gather(*readings)] == [[b"1", END.data]] * 20


async def test_reading_goes_on_after_any_id(make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]) -> None:
    log = make_log(shared_valkey)
    for number in range(450):
        log.append(*run, told(number))
    log.flush()
    log.close_run(*run, [END])
    everything = await read(log, run)

    for place in (0, 199, 200, 399, 449):
        assert await read(log, run, after=everything[place].id) == everything[place + 1 :]


async def test_after_the_end_nothing_comes_and_nobody_waits(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(shared_valkey, heartbeat_seconds=600)
    log.close_run(*run, [END])
    [end] = await read(log, run)

    assert await read(log, run, after=end.id) == []
    assert await read(log, run, after="99999999999999-0") == []


async def test_an_idle_stream_asks_the_server_nothing(
    make_log: MakeLog, own_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log, client = make_log(own_valkey, heartbeat_seconds=0.01), own_valkey.client()
    following = log.follow(*run)
    await anext(following)
    before = client.info("commandstats")["cmdstat_xrange"]["calls"]

    for _ in range(50):
        assert await anext(following) is None

    assert client.info("commandstats")["cmdstat_xrange"]["calls"] == before
    await following.aclose()
    client.close()


async def test_from_now_on_tells_only_what_is_new(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(shared_valkey)
    log.append(*run, told(1))
    log.flush()
    following = log.follow(*run, after=FROM_NOW)
    assert await asyncio.wait_for(anext(following), 5) is None

    log.append(*run, told(2))
    log.flush()
    log.close_run(*run, [END])

    assert data([event async for event in following if event is not None]) == [b"2", END.data]
    assert data(await read(log, run, after=FROM_NOW)) == [END.data]


async def test_an_idle_stream_beats(make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]) -> None:
    log = make_log(shared_valkey, heartbeat_seconds=0.05)
    following = log.follow(*run)

    assert [await asyncio.wait_for(anext(following), 5) for _ in range(30)] == [None] * 30
    assert log.followers == 1
    await following.aclose()
    assert log.followers == 0


async def test_a_busy_stream_beats_too(make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]) -> None:
    log = make_log(shared_valkey, heartbeat_seconds=0.05)
    following = log.follow(*run)
    beats = 0

    async with asyncio.timeout(20):
        while beats < 3:
            log.append(*run, told(1))
            beats += await anext(following) is None

    await following.aclose()


async def test_a_follower_that_is_cancelled_at_any_moment_ends(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log, moments = make_log(shared_valkey, heartbeat_seconds=0.05), random.Random(7)

    for number in range(400):
        reading = asyncio.create_task(drain(log.follow(*run)))
        if number % 3 == 0:
            log.append(*run, told(number))
        await asyncio.sleep(moments.random() * 0.01)
        reading.cancel()
        await asyncio.wait([reading], timeout=5)
        assert reading.cancelled(), number

    assert log.followers == 0


async def test_nothing_is_added_after_the_end(make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]) -> None:
    log, client = make_log(shared_valkey, ttl_seconds=60), shared_valkey.client()
    log.close_run(*run, [Event("error", b"{}"), END])

    log.append(*run, told(1))  # a worker that was fenced out and does not know it yet
    log.flush()
    log.close_run(*run, [Event("error", b"{}"), END])

    assert [event.name for event in await read(log, run)] == ["error", "end"]
    assert client.xlen(stream_key(*run)) == 2
    assert client.ttl(stream_key(*run)) <= 60
    client.close()


async def test_a_run_of_another_tenant_is_another_stream(make_log: MakeLog, shared_valkey: Valkey) -> None:
    log, run_id, acme, globex = make_log(shared_valkey), uuid4(), uuid4(), uuid4()
    log.append(acme, run_id, told(1))
    log.flush()
    log.close_run(acme, run_id, [END])
    log.close_run(globex, run_id, [END])

    assert data(await read(log, (globex, run_id))) == [END.data]


async def test_the_stream_expires_after_its_end_and_not_before(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log, client = make_log(shared_valkey, ttl_seconds=60), shared_valkey.client()
    log.append(*run, told(1))
    log.flush()
    assert client.ttl(stream_key(*run)) > 24 * 3600

    log.close_run(*run, [END])

    assert 0 < client.ttl(stream_key(*run)) <= 60
    client.close()


async def test_old_events_go_when_there_are_too_many(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(shared_valkey, max_events=1000)
    for number in range(5000):
        log.append(*run, told(number))
    log.flush()
    log.close_run(*run, [END])

    events = await read(log, run)
    assert 1000 <= len(events) < 1500
    assert events[-2].data == b"4999"


async def test_a_reader_that_stands_still_holds_a_page_of_bytes_whatever_the_events_size(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log, events = make_log(shared_valkey), [Event("values", b"%02d" % number * 100_000) for number in range(40)]
    for event in events:
        log.append(*run, event)
    log.flush()
    log.close_run(*run, [END])

    with Tap(shared_valkey.url, RedisListener) as tap:
        reader = RedisEventLog(tap.url, heartbeat_seconds=600)
        following = reader.follow(*run)
        first = await anext(following)
        held = tap.traffic().received_bytes
        rest = [event async for event in following if event is not None]
        await reader.aclose()

    assert held < PAGE_BYTES + 200_000 + 10_000, "a page, the first event that did not fit, and what is around them"
    assert first is not None
    assert data([first, *rest]) == [*data(events), END.data]


async def test_an_event_that_is_larger_than_a_page_is_read_alone(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log, large = make_log(shared_valkey), Event("values", b"x" * (PAGE_BYTES * 2))
    for event in (told(1), large, large, told(2)):
        log.append(*run, event)
    log.flush()
    log.close_run(*run, [END])

    assert data(await read(log, run)) == [b"1", large.data, large.data, b"2", END.data]


async def test_a_reader_that_fell_behind_what_is_kept_is_cut_off_and_misses_nothing_unnoticed(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(shared_valkey, max_events=100)
    for number in range(10):
        log.append(*run, told(number))
    log.flush()
    following = log.follow(*run)
    seen = [await anext(following)]

    for number in range(10, 1000):
        log.append(*run, told(number))
    log.flush()

    with pytest.raises(StreamUnavailable, match="no longer kept"):
        await asyncio.wait_for(collect(following, seen), 20)
    assert [event.data for event in seen if event is not None] == [b"%d" % number for number in range(10)]


async def test_large_events_leave_one_by_one_so_that_none_holds_up_the_other_runs_for_long(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    with Tap(shared_valkey.url, RedisListener) as tap:
        worker = RedisEventLog(tap.url)
        worker.append(*run, told(0))
        worker.flush()
        before = tap.traffic()
        with tap.holding_answers():
            worker.append(*run, told(1))  # what comes now waits for the answer to this
            await asyncio.to_thread(
                wait_for, lambda: tap.traffic().said != before.said, what="the first event to leave"
            )
            for _ in range(4):
                worker.append(*run, Event("values", b"x" * MAX_BATCH_BYTES))
        worker.flush()
        left = tap.traffic() - before
        worker.close()

    assert left.round_trips == left.said.total() == 5


async def test_what_is_no_id_is_refused(make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]) -> None:
    with pytest.raises(BadRequest):
        await read(make_log(shared_valkey), run, after="0-0) COUNT 1")


async def test_events_of_many_os_threads_keep_each_its_order(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(shared_valkey)

    def speak(who: int) -> None:
        for number in range(300):
            log.append(*run, Event("custom", b"%d:%d" % (who, number)))

    os_threads = [threading.Thread(target=speak, args=(who,)) for who in range(4)]
    for os_thread in os_threads:
        os_thread.start()
    for os_thread in os_threads:
        os_thread.join()
    log.flush()
    log.close_run(*run, [END])

    lines = data(await read(log, run))[:-1]
    for who in range(4):
        prefix = b"%d:" % who
        assert [line for line in lines if line.startswith(prefix)] == [prefix + b"%d" % number for number in range(300)]


async def test_a_forked_child_writes_with_a_writer_of_its_own(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(shared_valkey)
    log.append(*run, told(1))
    log.flush()

    def in_child() -> None:
        log.append(*run, told(2))
        log.flush()
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    await asyncio.to_thread(child.join, 20)
    log.append(*run, told(3))
    log.flush()
    log.close_run(*run, [END])

    assert child.exitcode == 0
    assert data(await read(log, run)) == [b"1", b"2", b"3", END.data]


async def test_an_attempt_whose_answer_was_lost_is_not_added_twice(
    shared_valkey: Valkey, run: tuple[UUID, UUID], make_log: MakeLog
) -> None:
    client = shared_valkey.client()
    batch = Batch(stream_key(*run), [told(1), told(2)])
    assert send(client, [batch], keep=1000) == []

    batch.again = True  # as the writer does when it was left without an answer
    assert send(client, [batch], keep=1000) == []

    log = make_log(shared_valkey)
    log.close_run(*run, [END])
    assert data(await read(log, run)) == [b"1", b"2", END.data]
    client.close()


async def test_a_server_that_forgot_the_script_is_told_it_again(
    make_log: MakeLog, shared_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log, client = make_log(shared_valkey), shared_valkey.client()
    log.append(*run, told(1))
    log.flush()
    client.script_flush()

    log.append(*run, told(2))
    log.flush()
    log.close_run(*run, [END])

    assert data(await read(log, run)) == [b"1", b"2", END.data]
    client.close()


# --------------------------------------------------------------------------- the server goes


async def test_followers_read_what_they_missed_when_only_the_subscription_was_lost(
    make_log: MakeLog, own_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log, client = make_log(own_valkey), own_valkey.client()
    following = log.follow(*run)
    log.append(*run, told(1))
    while (event := await asyncio.wait_for(anext(following), 5)) is None:
        pass

    client.client_kill_filter(_type="pubsub")
    for number in range(2, 50):
        log.append(*run, told(number))
    log.flush()
    log.close_run(*run, [END])

    async with asyncio.timeout(20):
        rest = [event async for event in following if event is not None]
    assert event.data == b"1"
    assert data(rest) == [b"%d" % number for number in range(2, 50)] + [END.data]
    client.close()


async def test_events_wait_for_a_frozen_server_and_come_once(
    make_log: MakeLog, own_valkey: Valkey, run: tuple[UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentfarm.streaming.connections.ANSWER_SECONDS", 0.3)
    log = make_log(own_valkey)
    log.append(*run, told(1))
    log.flush()

    own_valkey.freeze()
    for number in range(2, 20):
        log.append(*run, told(number))
    with pytest.raises(StreamUnavailable):
        log.flush(seconds=10)
    own_valkey.thaw()
    await until_flushed(log)
    log.close_run(*run, [END])

    assert data(await read(log, run)) == [b"%d" % number for number in range(1, 20)] + [END.data]


async def test_only_what_a_full_server_refused_is_sent_again(
    make_log: MakeLog, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [(uuid4(), uuid4()) for _ in range(3)]
    refuses = "if redis.call('EXISTS', KEYS[1] .. ':full') == 1 then return redis.error_reply('OOM no room') end\n"
    monkeypatch.setattr(writer_module, "APPEND", Script(refuses + APPEND.text))
    log, client = make_log(own_valkey), own_valkey.client()
    full = stream_key(*runs[1]) + ":full"
    client.set(full, "")

    # What comes while the writer waits for an answer leaves in one round trip.
    client.client_pause(20_000, all=False)
    log.append(uuid4(), uuid4(), told(0))
    wait_for(lambda: not log._writer._waiting, what="a writer that waits for its answer")
    for run in runs:
        log.append(*run, told(1))
    client.client_unpause()
    with pytest.raises(StreamUnavailable):
        log.flush(seconds=10)
    there = [client.exists(stream_key(*run)) for run in runs]
    client.delete(full)
    await until_flushed(log)

    assert there == [1, 0, 1]
    assert [client.xlen(stream_key(*run)) for run in runs] == [1, 1, 1]
    client.close()


async def test_a_follower_is_told_to_ask_anew_when_the_server_lost_its_stream(
    make_log: MakeLog, own_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(own_valkey)
    following = log.follow(*run)
    assert await asyncio.wait_for(anext(following), 5) is None  # it has looked, and there was nothing
    log.append(*run, told(1))
    while await asyncio.wait_for(anext(following), 5) is None:
        pass

    own_valkey.kill()
    own_valkey.start()

    with pytest.raises(StreamUnavailable):
        await asyncio.wait_for(drain(following), 20)


async def test_a_follower_finds_by_itself_that_the_server_was_emptied(
    make_log: MakeLog, own_valkey: Valkey, run: tuple[UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentfarm.streaming.log.BEATS_A_LOOK", 3)
    log, client = make_log(own_valkey), own_valkey.client()
    following = log.follow(*run)
    assert await asyncio.wait_for(anext(following), 5) is None  # it has looked, and there was nothing
    log.append(*run, told(1))
    while await asyncio.wait_for(anext(following), 5) is None:
        pass

    client.flushall()

    with pytest.raises(StreamUnavailable):
        await asyncio.wait_for(drain(following), 20)
    client.close()


async def test_a_run_that_has_not_spoken_yet_is_followed_through_the_servers_restart(
    make_log: MakeLog, own_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(own_valkey)
    following = log.follow(*run)
    assert await asyncio.wait_for(anext(following), 5) is None

    own_valkey.kill()
    own_valkey.start()
    log.append(*run, told(1))
    await until_flushed(log)
    log.close_run(*run, [END])

    async with asyncio.timeout(20):
        assert data([event async for event in following if event is not None]) == [b"1", END.data]


async def test_a_connection_that_fell_silent_is_found_and_made_anew(
    make_log: MakeLog, own_valkey: Valkey, run: tuple[UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentfarm.streaming.wakeups.PING_SECONDS", 0.1)
    monkeypatch.setattr("agentfarm.streaming.connections.ANSWER_SECONDS", 0.3)
    worker = make_log(own_valkey)
    async with blackhole(own_valkey.port) as hole:
        web = RedisEventLog(f"redis://127.0.0.1:{hole.port}/0", heartbeat_seconds=0.2)
        following = web.follow(*run)
        assert await asyncio.wait_for(anext(following), 5) is None

        assert hole.swallow_open_connections() == 2
        worker.append(*run, told(1))
        worker.flush()
        worker.close_run(*run, [END])

        async with asyncio.timeout(20):
            assert data([event async for event in following if event is not None]) == [b"1", END.data]
        await web.aclose()


async def test_without_a_server_following_and_closing_fail_clearly_and_appending_does_not(
    make_log: MakeLog, own_valkey: Valkey, run: tuple[UUID, UUID]
) -> None:
    log = make_log(own_valkey, connect_seconds=0.3)
    own_valkey.kill()

    log.append(*run, told(1))

    with pytest.raises(StreamUnavailable):
        log.flush()
    with pytest.raises(StreamUnavailable):
        log.close_run(*run, [END])
    with pytest.raises(StreamUnavailable):
        await read(log, run)
    with pytest.raises(StreamUnavailable):
        log.ping()


async def test_what_waits_for_a_dead_server_is_bounded(
    make_log: MakeLog, own_valkey: Valkey, run: tuple[UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING_BYTES", 100_000)
    log = make_log(own_valkey)
    own_valkey.kill()

    for _ in range(200):
        log.append(*run, Event("custom", b"x" * 10_000))

    assert log._writer._waiting_bytes <= 110_000


async def test_small_events_that_wait_take_no_more_memory_than_large_ones(
    make_log: MakeLog, own_valkey: Valkey, run: tuple[UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING_BYTES", 1_000_000)
    log = make_log(own_valkey)
    own_valkey.kill()

    tracemalloc.start()
    try:
        for number in range(20_000):
            log.append(*run, told(number))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert taken <= 1_250_000  # what the writer has in hand is not among what waits


async def collect(events: AsyncIterator[Event | None], into: list[Event | None]) -> None:
    async for event in events:
        into.append(event)  # noqa: PERF401  what came before a failure is kept


async def drain(events: AsyncIterator[Event | None]) -> None:
    async for _ in events:
        pass


async def until_flushed(log: RedisEventLog) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        try:
            await asyncio.to_thread(log.flush)
        except StreamUnavailable:
            assert asyncio.get_running_loop().time() < deadline
        else:
            return
