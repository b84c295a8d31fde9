"""A way to a server that takes longer: `python -m benchmarks.distance --to PORT --milliseconds 2`, each way.

As between two zones, or with a standby that has to confirm: bytes arrive later, and none of them waits for those before
it to be answered. Prints its own port, and serves until it is told to end.
"""

import argparse
import asyncio
import contextlib
import socket

CHUNK_BYTES = 65536


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """What is read is written so much later, in its order."""
    loop = asyncio.get_running_loop()
    last: asyncio.TimerHandle | None = None
    while data := await reader.read(CHUNK_BYTES):
        last = loop.call_later(seconds, writer.write, data)
    if last is not None:
        await asyncio.sleep(max(0.0, last.when() - loop.time()))
    with contextlib.suppress(OSError):  # closed by the other side meanwhile
        writer.write_eof()


async def serve(port: int, seconds: float) -> None:
    async def connect(reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection("127.0.0.1", port)
        for writer in (client, server):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.gather(_carry(reader, server, seconds), _carry(answers, client, seconds))
        except OSError:  # a process of the farm that was ended
            pass
        finally:
            client.close()
            server.close()

    listener = await asyncio.start_server(connect, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distance", description=__doc__)
    parser.add_argument("--to", type=int, required=True, help="port of the server on this machine")
    parser.add_argument("--milliseconds", type=float, required=True, help="each way")
    given = parser.parse_args()
    asyncio.run(serve(given.to, given.milliseconds / 1000))


if __name__ == "__main__":
    main()
