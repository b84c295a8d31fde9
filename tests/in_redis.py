"""What Redis has of runs, for tests to look at: a hash a thread, as the tier's lua/_lib.lua says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import redis

KEYS = "t:*:hot:*"


@dataclass(frozen=True, slots=True)
class Open:
    """An execution of the superstep that is under way, not over yet. worker: whose it is; None: nobody's so far"""

    execution_id: UUID
    node: str
    queue: str
    worker: int | None


@dataclass(frozen=True, slots=True)
class Moved:
    """A run, and where it stands. is_open: neither recalled nor at its end"""

    tenant_id: UUID
    thread_id: UUID
    run_id: UUID
    epoch: int
    checkpoint_id: UUID
    is_open: bool
    executions: Sequence[Open]


def read_moved(client: redis.Redis) -> list[Moved]:
    """Of every thread. Raises redis.RedisError.

    client  which decodes nothing
    """
    return [_moved(key.decode(), fields) for key, fields in _hashes(client, KEYS)]


def keys_of_runs(client: redis.Redis, pattern: str = KEYS) -> list[bytes]:
    """Of threads that have a run; of one that is over Redis remembers its epoch for a while."""
    return [key for key, _ in _hashes(client, pattern)]


def _hashes(client: redis.Redis, pattern: str) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    for key in client.keys(pattern):  # type: ignore[union-attr]  # of a sync client
        fields: Mapping[bytes, bytes] = client.hgetall(key)  # type: ignore[assignment]  # likewise
        if b"run" in fields:  # else it is over, or went meanwhile
            yield key, fields


def _moved(key: str, fields: Mapping[bytes, bytes]) -> Moved:
    _, tenant, _, thread = key.split(":")
    return Moved(
        tenant_id=UUID(tenant),
        thread_id=UUID(thread),
        run_id=_id(fields[b"run"]),
        epoch=int(fields[b"ep"]),
        checkpoint_id=_id(fields[b"at"]),
        is_open=fields[b"st"] == b"open",
        executions=tuple(_executions(fields)),
    )


def _executions(fields: Mapping[bytes, bytes]) -> Iterator[Open]:
    for number in range(1, int(fields[b"wd"]) + 1):
        execution = fields[b"e:%d" % number]
        state, *about = fields.get(b"x:" + execution, b"d").split(b",")
        if state in (b"r", b"l"):
            node, _, queue = fields[b"p:" + execution].decode().partition("\0")
            yield Open(_id(execution), node, queue, int(about[0]) if state == b"l" else None)


def _id(text: bytes) -> UUID:
    return UUID(text.decode())
