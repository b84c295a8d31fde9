"""A way to a server on which open connections can fall silent without being closed, as behind a lost host."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Blackhole:
    """Passes bytes on, in both directions, but for connections that were swallowed."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._swallowed: set[asyncio.Task[None]] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    def swallow_open_connections(self) -> int:
        """How many there were. New ones pass."""
        self._swallowed |= {pipe for pipe in self._pipes if not pipe.done()}
        return len(self._swallowed) // 2

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers += [writer, back]
        for source, sink in ((reader, back), (there, writer)):
            self._pipes.add(asyncio.create_task(self._pipe(source, sink)))

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if asyncio.current_task() not in self._swallowed:
                sink.write(data)
        sink.close()

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.cancel()
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def blackhole(target_port: int) -> AsyncIterator[Blackhole]:
    hole = Blackhole(target_port)
    server = await asyncio.start_server(hole.serve, "127.0.0.1", 0)
    hole.port = server.sockets[0].getsockname()[1]
    try:
        yield hole
    finally:
        server.close()
        hole.close()
        await asyncio.gather(*hole._pipes, return_exceptions=True)
