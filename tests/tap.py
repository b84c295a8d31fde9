"""A tap on the way to a server: what a process says to Postgres and to Redis, counted on the wire.

Counted is what the server is sent, whatever library sent it: a statement that an ORM adds, or a command that a pool
sends by itself, is in the figures. A round trip begins when a client speaks after it was answered; what it sends in one
go counts once. Each connection has two threads, on loopback.
"""

import contextlib
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, Self
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 1 << 16

AN_ID = re.compile("[0-9a-f]{32}")


@dataclass
class Traffic:
    """said  {what the server was asked: how often}"""

    said: Counter[str] = field(default_factory=Counter)
    round_trips: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    def __sub__(self, before: "Traffic") -> "Traffic":
        return Traffic(
            self.said - before.said,
            self.round_trips - before.round_trips,
            self.sent_bytes - before.sent_bytes,
            self.received_bytes - before.received_bytes,
        )

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.said + other.said,
            self.round_trips + other.round_trips,
            self.sent_bytes + other.sent_bytes,
            self.received_bytes + other.received_bytes,
        )

    def copy(self) -> "Traffic":
        return Traffic(Counter(self.said), self.round_trips, self.sent_bytes, self.received_bytes)

    def __str__(self) -> str:
        said = ", ".join(f"{count} x {what}" for what, count in sorted(self.said.items()))
        return f"{self.round_trips} round trips ({said}), {self.sent_bytes} B sent, {self.received_bytes} B received"


class Listener(Protocol):
    """Takes what one client sends, in pieces of any size, and tells what it asked for since."""

    name: str

    def hear(self, data: bytes) -> list[str]: ...


class PostgresListener:
    """Of one connection: its simple queries, and what it executes by the extended protocol.

    name  application_name, once it is known
    """

    #: Before the start of a session: SSLRequest, GSSENCRequest, CancelRequest.
    NO_STARTS = (80877103, 80877104, 80877102)

    def __init__(self) -> None:
        self.name = ""
        self._rest = b""
        self._has_started = False
        self._parsed: dict[bytes, str] = {}
        self._bound = ""

    def hear(self, data: bytes) -> list[str]:
        self._rest += data
        heard = []
        while (message := self._next()) is not None:
            if (said := self._take(*message)) is not None:
                heard.append(said)
        return heard

    def _next(self) -> tuple[bytes, bytes] | None:
        head = 1 if self._has_started else 0
        if len(self._rest) < head + 4:
            return None
        (length,) = struct.unpack_from(">I", self._rest, head)
        if len(self._rest) < head + length:
            return None
        kind, body = self._rest[:head], self._rest[head + 4 : head + length]
        self._rest = self._rest[head + length :]
        return kind, body

    def _take(self, kind: bytes, body: bytes) -> str | None:
        match kind:
            case b"":
                self._start(body)
            case b"Q":
                return _short(body.rstrip(b"\0").decode())
            case b"P":
                name, sql, _ = body.split(b"\0", 2)
                self._parsed[name] = name.decode() or _short(sql.decode())
                return f"PREPARE {name.decode()}" if name else None
            case b"B":
                _, name, _ = body.split(b"\0", 2)
                self._bound = self._parsed[name]
            case b"E":
                return self._bound
        return None

    def _start(self, body: bytes) -> None:
        (code,) = struct.unpack_from(">I", body)
        if code in self.NO_STARTS:
            return
        self._has_started = True
        words = body[4:].split(b"\0")
        told = dict(zip(words[::2], words[1::2], strict=False))
        self.name = told.get(b"application_name", b"").decode()


class RedisListener:
    """Of one connection: its commands; a script by its name, or else by the first letters of its hash. What it does is
    not on the wire.

    scripts  {hash: name}
    """

    name = ""

    def __init__(self, scripts: Mapping[str, str] = MappingProxyType({})) -> None:
        self._scripts = scripts
        self._rest = b""
        self._parts: list[bytes] = []
        self._left = 0

    def hear(self, data: bytes) -> list[str]:
        self._rest += data
        heard = []
        while (part := self._next()) is not None:
            self._parts.append(part)
            self._left -= 1
            if self._left == 0:
                heard.append(self._command(self._parts))
                self._parts = []
        return heard

    def _next(self) -> bytes | None:
        """The next string of a command, when all of it is there."""
        while (end := self._rest.find(b"\r\n")) >= 0:
            number, start = int(self._rest[1:end]), end + 2
            if self._rest[:1] == b"*":
                self._left, self._rest = number, self._rest[start:]
                continue
            if len(self._rest) < start + number + 2:
                return None
            part, self._rest = self._rest[start : start + number], self._rest[start + number + 2 :]
            return part
        return None

    def _command(self, parts: list[bytes]) -> str:
        name = parts[0].decode().upper()
        if name != "EVALSHA":
            return name
        sha = parts[1].decode()
        return self._scripts.get(sha) or script(sha)


class Tap:
    """Stands before the server of `url`; `tap.url` leads through it. A context manager.

    leaves_out  connections of these names are not counted (Postgres: application_name)
    """

    def __init__(self, url: str, listener: Callable[[], Listener], *, leaves_out: tuple[str, ...] = ()) -> None:
        self._parts = urlsplit(url)
        self._make_listener = listener
        self._leaves_out = leaves_out
        self._traffic = Traffic()
        self._lock = threading.Lock()
        self._answers = threading.Event()
        self._answers.set()
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        return self.url_of(urlunsplit(self._parts))

    def url_of(self, url: str) -> str:
        """The same way for another role or database of this server."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self._server.getsockname()[1]}"))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="tap", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.set()
        for one in [self._server, *self._open]:
            with contextlib.suppress(OSError):  # its peer was first
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def traffic(self) -> Traffic:
        with self._lock:
            return self._traffic.copy()

    @contextlib.contextmanager
    def holding_answers(self) -> Iterator[None]:
        """What clients send arrives; what the server says waits until the end."""
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()

    # -- threads

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:  # the end
                return
            server = socket.create_connection((self._parts.hostname or "", self._parts.port or 0))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [client, server]
            said = _Said(self, self._make_listener())
            threading.Thread(target=_pump, args=(client, server, said.asked), name="tap-up", daemon=True).start()
            threading.Thread(target=_pump, args=(server, client, said.answered), name="tap-down", daemon=True).start()

    def _note(self, listener: Listener, note: Callable[[Traffic], None]) -> None:
        if listener.name not in self._leaves_out:
            with self._lock:
                note(self._traffic)


class _Said:
    """One connection."""

    def __init__(self, tap: Tap, listener: Listener) -> None:
        self._tap, self._listener = tap, listener
        self._is_asking = False

    def asked(self, data: bytes) -> None:
        said, begins = self._listener.hear(data), not self._is_asking
        self._is_asking = True

        def note(traffic: Traffic) -> None:
            traffic.said.update(said)
            traffic.round_trips += begins
            traffic.sent_bytes += len(data)

        self._tap._note(self._listener, note)

    def answered(self, data: bytes) -> None:
        self._tap._answers.wait()
        self._is_asking = False

        def note(traffic: Traffic) -> None:
            traffic.received_bytes += len(data)

        self._tap._note(self._listener, note)


def _pump(source: socket.socket, target: socket.socket, note: Callable[[bytes], None]) -> None:
    """Noted before it is passed on: who has an answer finds it counted."""
    with contextlib.suppress(OSError):  # closed by its peer, or by the test
        while data := source.recv(CHUNK_BYTES):
            note(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def script(sha: str) -> str:
    """What a script's execution is counted as that has no name."""
    return f"EVALSHA {sha[:8]}"


def _short(sql: str) -> str:
    return " ".join(AN_ID.sub("…", sql).split())[:60]
