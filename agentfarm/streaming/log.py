"""The event log of the farm: one Redis Stream a run.

Appending is for workers (threads), following is for the web process (one event loop). Following never polls and holds
no thread and no connection of its own: `wakeups.py` rings, and the follower reads what comes after the last id it has.
So an event is read from the stream or not at all, whatever happened to the ring.
"""

import asyncio
import logging
import re
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from agentfarm.errors import BadRequest, StreamUnavailable
from agentfarm.records import Event
from agentfarm.streaming.connections import answer_of, reading_client, subscribing_connection, writing_client
from agentfarm.streaming.stream import END, READ, Batch, parse_entries, parse_page, stream_key
from agentfarm.streaming.wakeups import Wakeup, Wakeups
from agentfarm.streaming.writer import EventWriter, send

logger = logging.getLogger(__name__)

#: Read everything, and read only what comes from now on.
FROM_THE_START: Final = "0-0"
FROM_NOW: Final = "$"

#: What is read at once: so many events, and so many bytes of them, or one event that is larger. A client that does not
#: read holds one page in memory, never its whole run: 200 events of 1 MB were 200 MB of the web process for each.
PAGE: Final = 200
PAGE_BYTES: Final = 256 << 10

#: Seconds to wait before reading again when Redis did not answer; then the follower gives up; its client comes back.
PAUSES: Final = (0.05, 0.2, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0)

#: Every so many heartbeats a follower looks whether its stream is still there: a store that was emptied rings no bell.
BEATS_A_LOOK: Final = 12

NOT_KEPT: Final = "The events of this run are no longer kept here; join the run again."

_ID = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")


@dataclass(slots=True)
class _Loop:
    """What one event loop has: a client to read with, and the bells."""

    client: redis.asyncio.Redis
    wakeups: Wakeups


class RedisEventLog:
    """ports.EventLog. One a process; safe to use from any thread and any event loop.

    ttl_seconds        how long the events of a run that is over are kept
    max_events         events kept a run, roughly; the oldest go first
    heartbeat_seconds  how often `follow` answers None, at least
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_seconds: int = 3600,
        max_events: int = 100_000,
        heartbeat_seconds: float = 5.0,
        connect_seconds: float = 5.0,
    ) -> None:
        self._url = url
        self._ttl_seconds = ttl_seconds
        self._max_events = max_events
        self._heartbeat_seconds = heartbeat_seconds
        self._connect_seconds = connect_seconds
        self._client = writing_client(url, connect_seconds=connect_seconds)
        self._writer = EventWriter(self._client, keep=max_events)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = weakref.WeakKeyDictionary()

    # ----------------------------------------------------------------------- writing

    def append(self, tenant_id: UUID, run_id: UUID, event: Event) -> None:
        """Hand over to this process's writer: never blocks, never raises. In order."""
        self._writer.put(stream_key(tenant_id, run_id), event)

    def flush(self, *, seconds: float = 5.0) -> None:
        """Wait until all that was appended before by this process is in Redis. Raises StreamUnavailable."""
        self._writer.flush(seconds=seconds)

    def close_run(self, tenant_id: UUID, run_id: UUID, events: Sequence[Event]) -> None:
        """Append the last events and let the stream expire. A stream that has its end stays as it is.

        raises  StreamUnavailable; calling again is safe
        """
        batch = Batch(stream_key(tenant_id, run_id), list(events), seconds=self._ttl_seconds)
        try:
            refused = send(self._client, [batch], keep=self._max_events)
        except RedisError as error:
            raise StreamUnavailable from error
        if refused:
            raise StreamUnavailable

    def ping(self) -> None:
        """Raises StreamUnavailable when Redis does not answer."""
        try:
            self._client.ping()
        except RedisError as error:
            raise StreamUnavailable from error

    def close(self) -> None:
        """Send what waits and end the writer's thread: at the end of a process."""
        self._writer.close()
        self._client.close()

    # ----------------------------------------------------------------------- reading

    @property
    def followers(self) -> int:
        """Streams that are open in this process."""
        return sum(loop.wakeups.readers for loop in self._loops.values())

    async def follow(
        self, tenant_id: UUID, run_id: UUID, *, after: str = FROM_THE_START
    ) -> AsyncGenerator[Event | None, None]:
        """Events after `after`, then new ones as they come; None each heartbeat; ends after "end".

        after   an event's id; FROM_THE_START, or FROM_NOW (of a run that is over: its end alone)
        raises  BadRequest (no id), StreamUnavailable: Redis is away for long, or lost the stream, or this reader was so
                slow that what comes next is no longer kept; the caller comes back with the last id it has
        """
        if after != FROM_NOW and not _ID.fullmatch(after):
            raise BadRequest(why="the id of an event is two numbers with a hyphen, for example 1795416286670-0")
        loop = self._here()
        key = stream_key(tenant_id, run_id)
        async with loop.wakeups.on(key) as wakeup:
            reader = _Reader(loop.client, key, wakeup, after=after, heartbeat_seconds=self._heartbeat_seconds)
            async with aclosing(reader.events()) as events:
                async for event in events:
                    yield event

    async def aclose(self) -> None:
        """End this event loop's subscription and connections."""
        loop = self._loops.pop(asyncio.get_running_loop(), None)
        if loop is not None:
            await loop.wakeups.aclose()
            await loop.client.aclose()

    def _here(self) -> _Loop:
        running = asyncio.get_running_loop()
        if running not in self._loops:
            self._loops[running] = _Loop(
                reading_client(self._url, connect_seconds=self._connect_seconds),
                Wakeups(
                    lambda: subscribing_connection(self._url, connect_seconds=self._connect_seconds),
                    patience_seconds=self._connect_seconds,
                ),
            )
        return self._loops[running]


class _Reader:
    """One follower of one stream."""

    def __init__(
        self, client: redis.asyncio.Redis, key: str, wakeup: Wakeup, *, after: str, heartbeat_seconds: float
    ) -> None:
        self._client, self._key, self._wakeup = client, key, wakeup
        self._last = after
        self._has_seen = False  # an event, so that the stream must be there
        self._heartbeat_seconds = heartbeat_seconds
        self._clock = asyncio.get_running_loop().time
        self._next_beat = self._clock() + heartbeat_seconds
        self._beats = 0

    async def events(self) -> AsyncGenerator[Event | None, None]:
        pauses: Iterator[float] = iter(PAUSES)
        must_read = must_look = True  # look at once: the id may be that of the end, after which nothing comes
        while True:
            if must_read:
                self._wakeup.silence()
                try:
                    page, has_more = await self._read()
                    if not page and (must_look or self._wakeup.was_cut_off):
                        self._wakeup.was_cut_off = must_look = False
                        if await self._is_over():
                            return
                except RedisError as error:
                    page, pause = [], next(pauses, None)
                    if pause is None:
                        raise StreamUnavailable from error
                    await self._wakeup.wait(min(pause, self._until_beat()))
                else:
                    pauses = iter(PAUSES)
                    must_read = has_more
                for event in page:
                    yield event
                    if event.name == END:
                        return
            if not must_read:
                must_read = await self._wakeup.wait(self._until_beat())
            if self._until_beat() <= 0:
                yield None
                must_look = self._beat() or must_look
                must_read = must_read or must_look

    async def _read(self) -> tuple[list[Event], bool]:
        """A page, and whether there is more. Raises StreamUnavailable when the stream has gone on without this reader:
        what it missed is no longer there, and it must not be as if there had been nothing."""
        if self._last == FROM_NOW:
            newest = await self._newest()
            self._last = newest.id if newest else FROM_THE_START
            return [newest] if newest and newest.name == END else [], False
        answer = await answer_of(self._ask_for_page())
        if answer == b"gone":
            logger.warning("a reader's place in a stream is no longer kept; it is cut off")
            raise StreamUnavailable(NOT_KEPT)
        has_more, entries = answer
        if page := parse_entries(entries):
            self._last, self._has_seen = page[-1].id, True
        return page, bool(has_more)

    async def _ask_for_page(self) -> Any:
        told = (1, self._key, self._last, "seen" if self._has_seen else "", PAGE, PAGE_BYTES)
        try:
            return await self._client.evalsha(READ.sha, *told)
        except NoScriptError:
            return await self._client.eval(READ.text, *told)

    async def _is_over(self) -> bool:
        """Whether the end was read before. Raises StreamUnavailable when the stream has gone: the client asks anew."""
        newest = await self._newest()
        if newest is None and self._has_seen:
            raise StreamUnavailable(NOT_KEPT)
        return newest is not None and newest.name == END and not _is_after(newest.id, self._last)

    async def _newest(self) -> Event | None:
        page = parse_page(await answer_of(self._client.xrevrange(self._key, count=1)))
        return page[0] if page else None

    def _until_beat(self) -> float:
        return self._next_beat - self._clock()

    def _beat(self) -> bool:
        """Count a heartbeat; whether it is time to look at the stream itself."""
        self._next_beat = self._clock() + self._heartbeat_seconds
        self._beats += 1
        return self._beats % BEATS_A_LOOK == 0


def _is_after(one: str, other: str) -> bool:
    return _numbers(one) > _numbers(other)


def _numbers(id_: str) -> tuple[int, int]:
    milliseconds, _, sequence = id_.partition("-")
    return int(milliseconds), int(sequence or 0)
