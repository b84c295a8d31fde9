"""Who has a thread: the one Redis that there is, or that one of a cluster in whose slot it is.

A server is asked under its own name: whose memory a run is in is told by the identity of the process that answered, and
that of a restarted server is another one. The slots of a cluster are looked up by redis-py; scripts are sent to its
servers by connections of ours, since redis-py takes none of them in a pipeline over several.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar

from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import AskError, NoScriptError, RedisClusterException, RedisError, ResponseError
from redis.retry import Retry

from agentfarm.conf import Cluster
from agentfarm.errors import RedisTierUnavailable
from agentfarm.redis_clients import Script, make_bounded_client

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Between two looks at who has which slot, however often somebody is at the wrong address.
LOOK_SECONDS: Final = 1.0

_NAMES = ("open", "claim", "finish", "settle", "step", "put", "peek", "trim", "look", "drop", "renew", "rest", "again")


_SCRIPTS: Final = {name: Script.of_files(__package__, ("lua/_lib.lua", f"lua/{name}.lua")) for name in _NAMES}


class Server:
    """One process that answers at an address. Safe to use from any thread.

    Every call raises RedisTierUnavailable: it may have been carried out.

    connects  how often a connection was made: whoever is at the other end of a new one may be another than before
    """

    def __init__(self, url: str, *, answer_seconds: float, lost: Callable[[], None] = lambda: None) -> None:
        self.client = make_bounded_client(url, answer_seconds=answer_seconds, redis_connect_func=self._greet)
        self.connects = 0
        self._lost = lost
        self._identity = ""

    def _greet(self, connection: Any) -> None:
        connection.on_connect()
        self.connects += 1
        self._identity = ""

    def identity(self) -> str:
        """Of who answers: another one after a restart or a failover. Asked anew once a connection was made."""
        if not (known := self._identity):
            connects = self.connects
            known = str(self._ask(lambda: self.client.info("server"))["run_id"])
            self._identity = known if connects == self.connects else ""
        return known

    def run(self, name: str, key: str, *args: bytes | str) -> Any:
        script = _SCRIPTS[name]

        def ask() -> Any:
            try:
                return self.client.evalsha(script.sha, 1, key, *args)
            except NoScriptError:  # a server that has restarted; nothing was done
                self.client.script_load(script.text)
                return self.client.evalsha(script.sha, 1, key, *args)

        return self._ask(ask)

    def run_many(self, name: str, calls: Sequence[tuple[str, ...]]) -> list[Any]:
        """(key, *args) of each; the answers in their order, of those that were refused the errors.

        raises  RedisTierUnavailable: none was answered
        """
        if not calls:
            return []
        script = _SCRIPTS[name]

        def ask() -> list[Any]:
            pipeline = self.client.pipeline(transaction=False)
            for key, *args in calls:
                pipeline.evalsha(script.sha, 1, key, *args)
            answers = list(pipeline.execute(raise_on_error=False))
            refusals = [answer for answer in answers if isinstance(answer, RedisError)]
            unknown = next((one for one in refusals if isinstance(one, NoScriptError)), None)
            if unknown or len(refusals) == len(answers):
                raise unknown or refusals[0]
            return answers

        def ask_twice() -> list[Any]:
            try:
                return ask()
            except NoScriptError:
                self.client.script_load(script.text)
                return ask()

        # What only some are refused, as where a slot moves, keeps no other from its answer.
        return [self._unavailable(one) if isinstance(one, RedisError) else one for one in self._ask(ask_twice)]

    def close(self) -> None:
        self.client.close()

    def _ask(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except RedisError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: RedisError) -> RedisTierUnavailable:
        """And whoever finds servers is told where this may be the wrong one."""
        if isinstance(error, ResponseError) and not isinstance(error, AskError):
            return RedisTierUnavailable(why=_first_word(error))
        self._lost()  # AskError: its slot is, or is about to be, another's. Nothing was done.
        return RedisTierUnavailable(why=type(error).__name__)


def _first_word(error: ResponseError) -> str:
    """OOM, READONLY, NOPERM: what a server refuses begins with it; the rest may repeat what was sent."""
    return str(error).partition(" ")[0][:40]


class Servers(Protocol):
    """Where threads are."""

    def of(self, key: str) -> Server:
        """Who has this thread, as far as is known. Never raises: it says itself if it has not."""

    def close(self) -> None: ...


def make_servers(url: str, *, answer_seconds: float) -> Servers:
    cluster = Cluster.parse(url)
    if cluster is None:
        return OneServer(Server(url, answer_seconds=answer_seconds))
    return ClusterServers(cluster, answer_seconds=answer_seconds)


def by_server(servers: Servers, items: Iterable[T], key: Callable[[T], str]) -> list[tuple[Server, list[T]]]:
    """Each server's, in their order: what one of them does not answer must not keep what others have."""
    groups: dict[int, tuple[Server, list[T]]] = {}
    for item in items:
        server = servers.of(key(item))
        groups.setdefault(id(server), (server, []))[1].append(item)
    return list(groups.values())


class OneServer:
    def __init__(self, server: Server) -> None:
        self.server = server

    def of(self, key: str) -> Server:
        return self.server

    def close(self) -> None:
        self.server.close()


class ClusterServers:
    """The servers of a cluster, as far as threads were found at them."""

    def __init__(self, cluster: Cluster, *, answer_seconds: float) -> None:
        self._cluster = cluster
        self._answer_seconds = answer_seconds
        self._slots: RedisCluster | None = None
        self._is_stale = False
        self._looks_again_at = 0.0
        self._looking = threading.Lock()
        self._servers: dict[tuple[str, int], Server] = {}
        self._lock = threading.Lock()

    def of(self, key: str) -> Server:
        if self._slots is None or self._is_stale:
            self._look()
        place = self._find(key) or self._cluster.hosts[0]
        with self._lock:
            if place not in self._servers:
                self._servers[place] = Server(
                    self._cluster.url_of(*place), answer_seconds=self._answer_seconds, lost=self._note_lost
                )
            return self._servers[place]

    def close(self) -> None:
        with self._lock:
            if self._slots is not None:
                self._slots.close()
            for server in self._servers.values():
                server.close()

    def _note_lost(self) -> None:
        self._is_stale = True

    def _find(self, key: str) -> tuple[str, int] | None:
        try:
            node = self._slots.get_node_from_key(key) if self._slots else None  # type: ignore[no-untyped-call]
        except (RedisError, RedisClusterException):  # a slot that nobody has
            return None
        return None if node is None else (str(node.host), int(node.port))

    def _look(self) -> None:
        """One at a time: who comes meanwhile goes by the last look, and waits only where there was none."""
        if not self._looking.acquire(blocking=self._slots is None):
            return
        try:
            if time.monotonic() < self._looks_again_at:
                return
            self._looks_again_at = time.monotonic() + LOOK_SECONDS
            self._is_stale = False
            if self._slots is None:
                self._slots = self._connect()
            else:
                self._slots.nodes_manager.initialize()
        except (RedisError, RedisClusterException) as error:
            self._is_stale = True
            logger.warning("no server of the Redis cluster answers", extra={"why": type(error).__name__})
        finally:
            self._looking.release()

    def _connect(self) -> RedisCluster:
        return RedisCluster(
            startup_nodes=[ClusterNode(*place) for place in self._cluster.hosts],  # type: ignore[no-untyped-call]
            require_full_coverage=False,
            username=self._cluster.username,
            password=self._cluster.password,
            protocol=2,
            socket_timeout=self._answer_seconds,
            socket_connect_timeout=self._answer_seconds,
            retry=Retry(NoBackoff(), 0),
            ssl=self._cluster.is_encrypted,
        )
