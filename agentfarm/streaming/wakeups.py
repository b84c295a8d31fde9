"""One subscription a process wakes every reader of every stream.

A reader is told two things only: "there may be something new", and "the subscription was lost for a while; read what
you missed". Nothing polls; an idle stream costs a dictionary entry and an event. The connection is pinged, so that one
that is dead without knowing it is found and made anew.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Final

from redis.asyncio import Connection
from redis.exceptions import RedisError

from agentfarm.errors import StreamUnavailable

logger = logging.getLogger(__name__)

#: Silence after which the connection is asked whether it lives; as much silence again, and it is dead.
PING_SECONDS: Final = 5.0

#: Seconds between two attempts to subscribe again: doubled from the first to the last.
FIRST_PAUSE, LAST_PAUSE = 0.05, 2.0

#: Channels named in one SUBSCRIBE: a bound on the size of a command, not on the streams.
MAX_CHANNELS: Final = 1000


class Wakeup:
    """One reader's bell."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self.was_cut_off = False  # the subscription was lost and made anew; the reader sets it back

    def ring(self, *, was_cut_off: bool = False) -> None:
        self.was_cut_off = self.was_cut_off or was_cut_off
        self._rung.set()

    def silence(self) -> None:
        """Call before reading: a ring that comes while one reads is then not lost."""
        self._rung.clear()

    async def wait(self, seconds: float) -> bool:
        """Whether it rang within that time."""
        if not self._rung.is_set():
            try:
                async with asyncio.timeout(max(seconds, 0)):
                    await self._rung.wait()
            except TimeoutError:
                return False
        return True


class _Channel:
    def __init__(self) -> None:
        self.readers: set[Wakeup] = set()
        self.is_subscribed = asyncio.Event()
        self.was_subscribed = False  # at any time before


class Wakeups:
    """The subscription of one event loop. Made at the first reader, kept until it is closed."""

    def __init__(self, connect: Callable[[], Connection], *, patience_seconds: float) -> None:
        self._connect = connect
        self._patience_seconds = patience_seconds
        self._channels: dict[str, _Channel] = {}
        self._wanted: dict[str, bool] = {}  # channel → subscribe (True) or not any more, to be told to Redis
        self._has_wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def readers(self) -> int:
        return sum(len(channel.readers) for channel in self._channels.values())

    @asynccontextmanager
    async def on(self, name: str) -> AsyncIterator[Wakeup]:
        """A bell that rings at each message of the channel, from now on. Raises StreamUnavailable."""
        wakeup = Wakeup()
        channel = self._join(name, wakeup)
        try:
            try:
                async with asyncio.timeout(self._patience_seconds):
                    await channel.is_subscribed.wait()
            except TimeoutError:
                raise StreamUnavailable from None
            yield wakeup
        finally:
            self._leave(name, wakeup)

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _join(self, name: str, wakeup: Wakeup) -> _Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
            self._want(name, subscribe=True)
        channel.readers.add(wakeup)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="stream-wakeups")
        return channel

    def _leave(self, name: str, wakeup: Wakeup) -> None:
        channel = self._channels[name]
        channel.readers.discard(wakeup)
        if not channel.readers:
            del self._channels[name]
            self._want(name, subscribe=False)

    def _want(self, name: str, *, subscribe: bool) -> None:
        self._wanted.pop(name, None)  # so that the order is that of the last wish
        self._wanted[name] = subscribe
        self._has_wanted.set()

    # ----------------------------------------------------------------------- the connection

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            connection = self._connect()
            try:
                async with asyncio.timeout(self._patience_seconds):
                    await connection.connect()  # type: ignore[no-untyped-call]
                pause = FIRST_PAUSE
                self._wanted = dict.fromkeys(self._channels, True)
                self._has_wanted.set()
                await _until_one_fails(self._listen(connection), self._tell(connection))
            except (RedisError, OSError) as error:
                kind = type(error).__name__
                logger.warning("the subscription to the streams was lost; it is made anew", extra={"error": kind})
            except Exception:  # a bug of ours must not leave every reader waiting for ever
                logger.exception("the subscription to the streams failed; it is made anew")
            finally:
                await connection.disconnect(nowait=True)
                for channel in self._channels.values():
                    channel.is_subscribed.clear()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)

    async def _listen(self, connection: Connection) -> None:
        """Turn what Redis sends into rings. Raises when the connection is dead."""
        was_asked = False
        while True:
            answer = await connection.read_response(timeout=PING_SECONDS)
            if answer is not None:
                was_asked = False
                self._take(answer)
            elif was_asked:
                raise TimeoutError("the subscription does not answer")
            else:
                was_asked = True
                await connection.send_command("PING")

    def _take(self, answer: object) -> None:
        if not isinstance(answer, list) or answer[0] not in (b"message", b"subscribe"):
            return  # "pong", "unsubscribe"
        channel = self._channels.get(answer[1].decode())
        if channel is None:
            return
        was_cut_off = False
        if answer[0] == b"subscribe":
            is_first, channel.was_subscribed = not channel.was_subscribed, True
            was_cut_off = not is_first and not channel.is_subscribed.is_set()
            channel.is_subscribed.set()
            if is_first:
                return  # its readers wait for just this, and read then
        for wakeup in channel.readers:
            wakeup.ring(was_cut_off=was_cut_off)

    async def _tell(self, connection: Connection) -> None:
        """Bring to Redis what readers want. Here and not in the readers: one that is cancelled while it
        sends would take everyone's connection with it."""
        while True:
            await self._has_wanted.wait()
            self._has_wanted.clear()
            wanted, self._wanted = self._wanted, {}
            await self._command(
                connection, "UNSUBSCRIBE", [name for name, subscribe in wanted.items() if not subscribe]
            )
            await self._command(connection, "SUBSCRIBE", [name for name, subscribe in wanted.items() if subscribe])

    async def _command(self, connection: Connection, command: str, names: list[str]) -> None:
        for start in range(0, len(names), MAX_CHANNELS):
            await connection.send_command(command, *names[start : start + MAX_CHANNELS])


async def _until_one_fails(*both: Coroutine[None, None, None]) -> None:
    """Run both; raise what the first to fail raised, when the other has ended too.

    Not a TaskGroup: in Python 3.11 one whose member fails while the group is left keeps its own task marked as
    cancelled, and one that is cancelled while a member fails tells of the failure alone.
    """
    tasks = [asyncio.create_task(one) for one in both]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
