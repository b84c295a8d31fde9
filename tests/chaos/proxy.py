"""A TCP proxy whose weather can be changed: what a network does between two processes that are both alive.

One event loop, in a thread of its own, serves any number of proxies, on loopback. Each direction has a gate. While it
is shut, bytes are held, not dropped, and come out when it opens: as in a partition that heals, after which TCP sends
again.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")

Direction = Literal["up", "down"]  # to the server, from it

CHUNK_BYTES = 65536


@dataclass(eq=False)
class _Pair:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter

    def reset(self) -> None:
        """RST instead of FIN to both, as when the machine between them forgot the connection."""
        for writer in (self.client, self.server):
            opened: socket.socket | None = writer.get_extra_info("socket")
            if opened is not None:
                with contextlib.suppress(OSError):  # closed by its peer meanwhile
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


@dataclass(eq=False)
class Proxy:
    """The way from one group of processes to one server.

    upstream  the server's port at each new connection, since a server may come back elsewhere
    touched   bytes (and connections) that felt the weather: 0 says that a fault changed nothing
    """

    name: str
    upstream: Callable[[], int]
    port: int = 0
    touched: int = 0
    delay_seconds: float = 0.0
    refuses: bool = False
    _gates: dict[Direction, asyncio.Event] = field(default_factory=dict)
    _pairs: set[_Pair] = field(default_factory=set)
    _listener: asyncio.Server | None = None
    _network: "Network | None" = None

    # -- the weather, from any thread

    def hold(self, *directions: Direction) -> None:
        """A black hole in these directions; existing and new connections stay open."""
        self._do(lambda: [self._gates[one].clear() for one in directions])

    def cut(self) -> None:
        """Reset every open connection; new ones are taken."""

        def cut() -> None:
            self.touched += len(self._pairs)
            for pair in list(self._pairs):
                pair.reset()

        self._do(cut)

    def refuse(self) -> None:
        """Reset every connection, and each new one at once."""

        def refuse() -> None:
            self.refuses = True

        self._do(refuse)
        self.cut()

    def slow(self, seconds: float) -> None:
        """So long for each chunk, in each direction."""

        def slow() -> None:
            self.delay_seconds = seconds

        self._do(slow)

    def clear(self) -> None:
        """Fair weather: what was held arrives."""

        self._do(self._clear)

    def _clear(self) -> None:
        self.delay_seconds, self.refuses = 0.0, False
        for gate in self._gates.values():
            gate.set()

    def _do(self, change: Callable[[], object]) -> None:
        async def changed() -> None:
            change()

        assert self._network is not None
        self._network.call(changed())

    # -- the traffic, in the loop's thread

    async def open(self) -> None:
        for direction in ("up", "down"):
            self._gates[direction] = asyncio.Event()
            self._gates[direction].set()
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for pair in list(self._pairs):
            pair.reset()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self.refuses:
            self.touched += 1
            client.transport.abort()
            return
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self.upstream())
        except OSError:  # nobody listens there: that is what the client is to see
            client.transport.abort()
            return
        pair = _Pair(client, server)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, server, "up"), self._pump(answers, client, "down"))
        except OSError:  # one side is gone, and the other hears of it
            pair.reset()
        except asyncio.CancelledError:  # the proxy ends. asyncio's own callback would print one that is not caught
            pair.reset()
        finally:
            self._pairs.discard(pair)
            client.close()
            server.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        gate = self._gates[direction]
        while data := await reader.read(CHUNK_BYTES):
            if self.delay_seconds:
                self.touched += len(data)
                await asyncio.sleep(self.delay_seconds)
            if not gate.is_set():
                self.touched += len(data)
                await gate.wait()
            writer.write(data)
            await writer.drain()
        if not gate.is_set():  # the end of a stream travels no faster than its bytes
            await gate.wait()
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()


class Network:
    """The proxies of one farm. A context manager; `call` runs a coroutine in its loop, from any other thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self.proxies: list[Proxy] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def proxy(self, name: str, upstream: Callable[[], int]) -> Proxy:
        made = Proxy(name, upstream, _network=self)
        self.call(made.open())
        self.proxies.append(made)
        return made

    def find(self, names: Iterable[str]) -> list[Proxy]:
        wanted = set(names)
        return [proxy for proxy in self.proxies if proxy.name in wanted]

    def call(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(15)

    async def _close(self) -> None:
        for proxy in self.proxies:
            await proxy.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
