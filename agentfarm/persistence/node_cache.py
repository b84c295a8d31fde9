"""Results of nodes with a CachePolicy, shared by all workers: LangGraph's cache over Redis, one tenant and graph each.

A cache may be lost at any time and must never cost a run: where Redis does not answer, nothing was cached. An entry's
key is a hash, so that no input can be read off it; its value is written by the graph's serializer, as its state is.

    t:<tenant>:cache:<graph>:<namespace>:<entry>    hex digits; <graph> and <namespace> so that a part can be cleared
"""

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.checkpoint.serde.base import SerializerProtocol
from redis.exceptions import RedisError

from agentfarm.errors import CacheUnavailable, ValueLost
from agentfarm.persistence.serde import FaithfulSerializer, serde_of
from agentfarm.redis_clients import make_bounded_client

logger = logging.getLogger(__name__)

#: Seconds that an answer may take. A cache that is slower is none; an answer takes a fraction of a millisecond.
ANSWER_SECONDS: Final = 0.5

#: Seconds in which Redis is not asked again after it did not answer, so that nodes do not wait for it one by one.
PAUSE_SECONDS: Final = 5.0

#: Keys looked at and removed in one round trip of `clear`.
CLEAR_BATCH: Final = 1000

Writes = Sequence[tuple[str, Any]]


class RedisNodeCaches:
    """ports.NodeCaches. One a process; safe to use from any thread.

    serde_for    the serializer of a graph's state
    max_bytes    of one entry; a larger result is not cached. 0: nothing is
    max_seconds  how long an entry is kept at most, also where its policy names no ttl
    """

    def __init__(
        self,
        url: str,
        serde_for: Callable[[str], FaithfulSerializer],
        *,
        max_bytes: int,
        max_seconds: int,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._serde_for = serde_for
        self.max_bytes, self.max_seconds = max_bytes, max_seconds
        self.client = make_bounded_client(url, answer_seconds=answer_seconds)
        self._lock = threading.Lock()
        self._asks_again_at = 0.0
        self._told: set[tuple[str, Namespace]] = set()

    def of(self, tenant_id: UUID, graph_id: str, *, fingerprint: str = "", made: Any = None) -> "NodeCache":
        """The cache of one graph for one tenant.

        fingerprint  of the graph: results of one with other nodes or channels are not this one's
        made         the graph, where a factory made it for this request: whose classes the results are of
        """
        serde = self._serde_for(graph_id)
        if made is not None:
            serde = serde_of(made, lossy=serde.softens)
        return NodeCache(self, tenant_id, graph_id, fingerprint, serde)

    def clear(self, tenant_id: UUID, graph_id: str | None = None) -> None:
        """Remove a tenant's entries of one graph, or of all. One that is written meanwhile may stay.

        raises  CacheUnavailable: some may be removed; calling again is safe
        """
        self.remove(_prefix(tenant_id, graph_id))

    def remove(self, prefix: str) -> None:
        """Every key that begins so: looks at all keys of the server, in steps that hold nobody up."""
        try:
            for keys in _batches(self.client.scan_iter(match=prefix + "*", count=CLEAR_BATCH)):
                self.client.unlink(*keys)
        except RedisError as error:
            raise CacheUnavailable from error

    def close(self) -> None:
        self.client.close()

    def ask(self, call: Callable[[], Any]) -> Any:
        """What Redis answers; None where it does not, now or a moment ago."""
        if time.monotonic() < self._asks_again_at:
            return None
        try:
            return call()
        except RedisError as error:
            with self._lock:
                self._asks_again_at = time.monotonic() + PAUSE_SECONDS
            logger.warning("the node cache does not answer: nodes are executed", extra={"error": type(error).__name__})
            return None

    def tell_once(self, what: str, ns: Namespace, **facts: object) -> None:
        """What is wrong with a node's results, once a node and process."""
        if (what, ns) not in self._told:
            self._told.add((what, ns))
            logger.warning(what, extra={"node": ns[-1] if ns else "", **facts})


class NodeCache(BaseCache[Writes]):
    """What stock LangGraph asks before it runs a node with a CachePolicy, and tells afterwards. Never raises for a
    Redis that is away, nor for a value that cannot be kept."""

    def __init__(
        self, caches: RedisNodeCaches, tenant_id: UUID, graph_id: str, fingerprint: str, serde: SerializerProtocol
    ) -> None:
        super().__init__(serde=serde)
        self._caches = caches
        self._prefix = _prefix(tenant_id, graph_id)
        self._fingerprint = fingerprint

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Writes]:
        if not keys or not self._caches.max_bytes:
            return {}
        asked = [self._key(key) for key in keys]
        found = self._caches.ask(lambda: self._caches.client.mget(asked))
        return {
            key: writes
            for key, entry in zip(keys, found or (), strict=False)
            if entry is not None and (writes := self._read(key, entry)) is not None
        }

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Writes]:
        return await asyncio.to_thread(self.get, keys) if keys else {}

    def set(self, pairs: Mapping[FullKey, tuple[Writes, int | None]]) -> None:
        for key, (writes, ttl) in pairs.items():
            if (entry := self._entry(key, writes)) is not None:
                self._set(self._key(key), entry, self._seconds(ttl))

    async def aset(self, pairs: Mapping[FullKey, tuple[Writes, int | None]]) -> None:
        await asyncio.to_thread(self.set, pairs)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Remove the entries of these namespaces, or all of this graph's. One that is written meanwhile may stay.

        raises  CacheUnavailable: some may be removed; calling again is safe
        """
        for part in [""] if namespaces is None else [_hash(*ns) + ":" for ns in namespaces]:
            self._caches.remove(self._prefix + part)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        await asyncio.to_thread(self.clear, namespaces)

    # ----------------------------------------------------------------------- entries

    def _key(self, key: FullKey) -> str:
        ns, name = key
        return f"{self._prefix}{_hash(*ns)}:{_hash(self._fingerprint, name)}"

    def _entry(self, key: FullKey, writes: Writes) -> bytes | None:
        try:
            kind, data = self.serde.dumps_typed(list(writes))
        except ValueLost as error:
            self._caches.tell_once(
                "a result is not cached: a value of it would not come back. Let the node return plain data, or take "
                "its CachePolicy off",
                key[0],
                type=error.facts.get("type"),
            )
            return None
        if len(data) <= self._caches.max_bytes:
            return kind.encode() + b":" + data
        if self._caches.max_bytes:
            self._caches.tell_once(
                "a result is not cached: it is larger than AGENTFARM_NODE_CACHE_MAX_BYTES", key[0], bytes=len(data)
            )
        return None

    def _read(self, key: FullKey, entry: bytes) -> Writes | None:
        kind, _, data = entry.partition(b":")
        try:
            return [(channel, value) for channel, value in self.serde.loads_typed((kind.decode(), data))]
        except Exception as error:  # written by another version, or by hand: as if it were not there
            self._caches.tell_once(
                "a cached result cannot be read: the node is executed", key[0], error=type(error).__name__
            )
            return None

    def _set(self, key: str, entry: bytes, seconds: int) -> None:
        if seconds > 0:
            self._caches.ask(lambda: self._caches.client.set(key, entry, ex=seconds))

    def _seconds(self, ttl: int | None) -> int:
        return self._caches.max_seconds if ttl is None else min(int(ttl), self._caches.max_seconds)


def _prefix(tenant_id: UUID, graph_id: str | None) -> str:
    return f"t:{tenant_id.hex}:cache:" + (f"{_hash(graph_id)}:" if graph_id is not None else "")


def _hash(*parts: str) -> str:
    """32 hex digits; other parts, or parts cut elsewhere, give others."""
    told = b"".join(b"%d:%s" % (len(part.encode()), part.encode()) for part in parts)
    return hashlib.sha256(told).hexdigest()[:32]


def _batches(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for key in keys:
        batch.append(key)
        if len(batch) == CLEAR_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
