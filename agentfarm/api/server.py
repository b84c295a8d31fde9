"""The web process: uvicorn around the application, ended in such a way that no client loses anything.

On SIGTERM uvicorn waits for open requests, and a stream never ends by itself. So the streams are cut first: their
clients come back, to another web process, with the last id they have. Other requests are answered.
"""

import asyncio
import atexit
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

import uvicorn

from agentfarm.conf import is_loopback, settings
from agentfarm.errors import Misconfigured
from agentfarm.streaming.handoff import ASGIApp

logger = logging.getLogger(__name__)

#: Seconds that requests without a stream have to be answered after SIGTERM.
GRACE_SECONDS: Final = 25

#: Seconds that handlers of atexit have then, those of graphs and their libraries. With the grace it is less than the
#: 30 s that orchestrators wait before they kill.
LEAVE_SECONDS: Final = 4

#: Connections that wait to be taken: as many as may come while the loop is busy.
BACKLOG: Final = 4096

#: Idle connections are kept longer than proxies keep theirs (60 s is common), so that it is never us who closes first.
KEEP_ALIVE_SECONDS: Final = 75


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT, in the main thread, while the loop runs. A second SIGINT ends at once."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        with contextlib.suppress(RuntimeError):  # the loop has not begun, or has just ended: then nothing is open
            asyncio.get_running_loop().call_soon_threadsafe(self._end_streams)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn raises the signal again when all is done; we end as one ends after doing what was asked: with 0."""
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, self.handle_exit)  # for good: who asks again while the process ends changes nothing
        yield


def check_host(host: str) -> None:
    """Raises Misconfigured where requests without a key would come in from other machines."""
    if settings().anonymous_tenant and not is_loopback(host):
        raise Misconfigured(
            f"ANONYMOUS_TENANT is set, which lets requests without a key in, and {host!r} can be reached by others. "
            "Serve on 127.0.0.1, or unset ANONYMOUS_TENANT."
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections already. Raises Misconfigured, which names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Misconfigured(
            f"Cannot listen on {render_address(host, port)}: {error.strerror or type(error).__name__}. "
            "Choose another port with --port (or PORT), another address with --host."
        ) from error


def render_address(host: str, port: int) -> str:
    return f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"


def serve(app: ASGIApp, listener: socket.socket, *, end_streams: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT. Threads and tasks that have nobody to answer to may be left: `leave` is next."""
    config = uvicorn.Config(
        app,
        log_config=None,  # telemetry/logs.py
        access_log=False,  # api/edge.py writes it
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    server = Server(config, end_streams=end_streams)
    # Never closed: that waits for each thread of the loop's, and one that asks a silent Postgres takes half a minute.
    asyncio.Runner(loop_factory=config.get_loop_factory()).run(server.serve(sockets=[listener]))


def leave() -> NoReturn:
    """End this process with 0, whatever its threads wait for.

    Python would join them, and then take every object of the process apart: 1.5 s of CPU with LangGraph loaded, on a
    machine that has much else to do half a minute, in which a roll-out stands still. The kernel does it at once.
    """
    late = threading.Timer(LEAVE_SECONDS, _leave_anyway)
    late.daemon = True
    late.start()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _leave_anyway() -> None:
    logger.warning("handlers of atexit do not end; the process ends without them, its threads stand as follows")
    faulthandler.dump_traceback()
    os._exit(0)
