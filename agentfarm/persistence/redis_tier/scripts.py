"""The scripts of lua/ as calls: ids and bytes in, verdicts and bytes out. One round trip each.

The key of a thread is t:<tenant>:hot:{<thread>}: a tenant's by its prefix, which a Redis user can be held to, and one
slot of a cluster, whatever a run does.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID

import ormsgpack

from agentfarm.errors import LeaseLost, RedisTierUnavailable
from agentfarm.messages import ExecuteNode
from agentfarm.persistence.bodies import Head, WriteRow
from agentfarm.persistence.leases import Held
from agentfarm.persistence.redis_tier.servers import Server, by_server, make_servers

T = TypeVar("T")

#: Seconds that an answer may take. What is slower is not worth its name: the run goes on in Postgres.
ANSWER_SECONDS: Final = 2.0

#: Milliseconds after which Redis forgets a thread that nobody touches: a node that takes longer finds its run in
#: Postgres.
KEPT_MS: Final = 3_600_000

#: For how long Redis remembers that a run has ended, or was recalled, and how long the claim of its start may be on its
#: way there (Redis' clock may be put forward by the rest): who is frozen in between would begin one that has ended, or
#: goes on in Postgres. Longer than any claim takes that is worth waiting for.
REMEMBERED_MS: Final = 60_000
OPEN_SECONDS: Final = REMEMBERED_MS / 1000 / 3

#: Entries of a thread that Postgres may lack before its next claim must wait for Postgres.
MAX_WAITING: Final = 256

#: Bytes of entries that one answer has, or those of one round trip over many threads, about.
PEEK_BYTES: Final = 4 << 20
LEAST_PEEK_BYTES: Final = 64 << 10


def thread_key(tenant_id: UUID, thread_id: UUID) -> str:
    return f"t:{tenant_id.hex}:hot:{{{thread_id.hex}}}"


@dataclass(frozen=True, slots=True)
class Place:
    """A thread, the run that is on it in Redis, and the epoch under which it is there."""

    tenant_id: UUID
    home: str
    thread_id: UUID
    run_id: UUID
    epoch: int

    @property
    def key(self) -> str:
        return thread_key(self.tenant_id, self.thread_id)


@dataclass(frozen=True, slots=True)
class Entry:
    """What Postgres lacks: one commit.

    begun, over  milliseconds since 1970, of Redis' clock
    released     a sibling that was held back (max_concurrency), and has been given out by this commit
    """

    number: int
    id: UUID
    worker: int
    begun: int
    over: int
    body: bytes
    released: UUID | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Of one thread, from the first that Postgres lacks on.

    before  id of the entry before the first; None: there is none
    last    number of the last one that there is, here or not
    """

    epoch: int
    run_id: UUID
    last: int
    before: UUID | None
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a claim answers with. head None: as it is known, or there is none"""

    verdict: str
    graph_id: str = ""
    build: str = ""
    call: bytes = b""
    run_spec: bytes = b""
    is_answered: bool = False
    in_wave: bool = False
    head_id: UUID | None = None
    head: Head | None = None
    writes: Sequence[WriteRow] = ()


@dataclass(frozen=True, slots=True)
class Siblings:
    """What `settle` answers with.

    released  (execution, node, queue) of one that is to have a message now
    is_last   the caller has the advance
    taken     one that is leased to the caller, with its call
    """

    verdict: str
    released: tuple[UUID, str, str] | None = None
    is_last: bool = False
    taken: UUID | None = None
    call: bytes = b""
    is_answered: bool = False


#: Of an execution in a wave that has no message.
UNSENT: Final = -1


@dataclass(frozen=True, slots=True)
class Open:
    """An open execution.

    worker       None: nobody has it
    age_seconds  since its message was sent; or since its holder has last said that it works on it
    times        how often its message was sent again; UNSENT: it has none, but waits for who has settled a sibling
    """

    checkpoint_id: UUID
    execution_id: UUID
    node: str
    queue: str
    worker: int | None
    age_seconds: float
    times: int


@dataclass(frozen=True, slots=True)
class Look:
    epoch: int
    state: str
    server: str
    last: int
    arrived: int
    open: Sequence[Open] = field(default=())


class RedisScripts:
    """One a process; safe to use from any thread.

    Every call raises RedisTierUnavailable: it may have been carried out.
    """

    def __init__(self, url: str, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.servers = make_servers(url, answer_seconds=answer_seconds)

    def close(self) -> None:
        self.servers.close()

    # ----------------------------------------------------------------------- one execution

    def open(
        self,
        place: Place,
        held: Held,
        *,
        graph_id: str,
        build: str,
        run_spec: bytes,
        head_id: UUID | None,
        head: Head | None,
        writes: Sequence[WriteRow],
    ) -> str:
        """Begin a run, its start leased. Answers ok, known (it was begun), ended (… and is over) or stale."""
        blobs = dict(head.blobs) if head else {}
        header = {
            **_lease(place, held), "wk": str(held.worker), "hd": _hex(head_id), "rf": list(blobs),
            "wn": [name_of(row) for row in writes], "gb": f"{graph_id}\0{build}", "ttl": KEPT_MS,
        }  # fmt: skip
        body = head.body if head else b""
        rows = [dump_row(row) for row in writes]
        server = self.servers.of(place.key)
        while True:
            header["sv"] = server.identity()
            connects = server.connects
            given = ormsgpack.packb(header)
            verdict = _text(server.run("open", place.key, given, run_spec, body, *blobs.values(), *rows)[0])
            if verdict != "ok" or connects == server.connects:
                return verdict
            # It may have been opened in the name of another process.
            server.run("drop", place.key, place.run_id.hex)

    def claim(
        self,
        place: Place,
        held: Held,
        *,
        retake: bool,
        has_run: bool,
        known_head: UUID | None,
    ) -> Loaded:
        """verdict  ok, busy, gone, lost, stale or full"""
        header = {
            **_lease(place, held), "wk": str(held.worker), "retake": retake, "have_run": has_run,
            "have_head": _hex(known_head) or "-", "max": MAX_WAITING, "all": held.execution_id == held.run_id,
        }  # fmt: skip
        server, connects = self.servers.of(place.key), -1
        while connects != server.connects:  # else another process may have answered than the one that was meant
            given = {**header, "sv": server.identity()}
            connects = server.connects
            answer = server.run("claim", place.key, ormsgpack.packb(given))
            header["retake"] = header["retake"] or answer[0] == b"ok"  # it is this call's own then
        if (verdict := _text(answer[0])) != "ok":
            return Loaded(verdict)
        head, at = _read_head(answer, 7)
        writes, _ = _read_writes(answer, at)
        graph_id, _, build = _text(answer[1]).partition("\0")
        return Loaded(
            verdict="ok",
            graph_id=graph_id,
            build=build,
            call=answer[2],
            run_spec=answer[3],
            is_answered=answer[4] == b"1",
            in_wave=bool(answer[5]),
            head_id=UUID(_text(answer[6])) if answer[6] else None,
            head=head,
            writes=writes,
        )

    def finish(self, place: Place, held: Held, header: Mapping[str, Any], parts: Sequence[bytes]) -> tuple[str, bool]:
        """ok, or the verdict that refuses it: lost, stale, over, fenced, forgot; done: it was made before. And whether
        the first of the next executions is leased to the caller, as it asked."""
        given = {**_lease(place, held), "wk": str(held.worker), "ttl": KEPT_MS, "max": MAX_WAITING, **header}
        answer = self._call("finish", place, given, *parts)
        return _text(answer[0]), len(answer) > 1 and bool(answer[1])

    def settle(self, place: Place, held: Held, header: Mapping[str, Any], parts: Sequence[bytes]) -> Siblings:
        given = {**_lease(place, held), "wk": str(held.worker), "ttl": KEPT_MS, "max": MAX_WAITING, **header}
        answer = self._call("settle", place, given, *parts)
        if (verdict := _text(answer[0])) != "ok":
            return Siblings(verdict)
        _, released, where, is_last, taken, call, is_answered = answer
        return Siblings(
            verdict="ok",
            released=_sibling(released, where) if released else None,
            is_last=bool(is_last),
            taken=UUID(_text(taken)) if taken else None,
            call=call,
            is_answered=is_answered == b"1",
        )

    def rest_of_wave(self, place: Place, checkpoint_id: UUID, most: int) -> list[tuple[UUID, str, str]]:
        """(execution, node, queue) of so many siblings that wait without a message. Each is named once."""
        answer = self.servers.of(place.key).run("rest", place.key, str(place.epoch), checkpoint_id.hex, str(most))
        return [_sibling(*pair) for pair in zip(answer[::2], answer[1::2], strict=True)]

    def step(self, place: Place, held: Held, *, has_head: bool) -> tuple[Head | None, list[WriteRow], dict[str, str]]:
        """All that the advance needs that `held` leases. Raises LeaseLost."""
        answer = self._call("step", place, {**_lease(place, held), "have_head": has_head})
        if answer[0] != b"ok":
            raise LeaseLost(execution_id=str(held.execution_id))
        head, at = _read_head(answer, 1)
        writes, at = _read_writes(answer, at)
        pairs = zip(answer[at::2], answer[at + 1 :: 2], strict=True)
        return head, writes, {str(UUID(_text(execution))): _text(outcome) for execution, outcome in pairs}

    def put(self, place: Place, held: Held, header: Mapping[str, Any], entry: bytes) -> tuple[str, int]:
        """Verdict as of `finish`, or full, and the entry's number; 0 where it is not told."""
        given = {**_lease(place, held), "ttl": KEPT_MS, "max": MAX_WAITING, **header}
        answer = self._call("put", place, given, entry)
        return _text(answer[0]), int(answer[1]) if len(answer) > 1 else 0

    # ----------------------------------------------------------------------- threads

    def by_server(self, items: Iterable[T], key: Callable[[T], str]) -> list[tuple[Server, list[T]]]:
        """Each server's, for the calls that take many: what one does not answer must not keep what others have."""
        return by_server(self.servers, items, key)

    def peek(self, key: str, *, recall: int = 0) -> Waiting | None:
        """What Postgres lacks of a thread; None: Redis knows nothing of it.

        recall  an epoch, if it is still the thread's: nobody commits there any more
        """
        answer = self.servers.of(key).run("peek", key, str(PEEK_BYTES), str(recall), str(KEPT_MS))
        return _read_waiting(answer)

    def peek_many(self, server: Server, keys: Sequence[str]) -> list[Waiting | RedisTierUnavailable | None]:
        share = str(max(PEEK_BYTES // max(1, len(keys)), LEAST_PEEK_BYTES))
        answers = server.run_many("peek", [(key, share, "", str(KEPT_MS)) for key in keys])
        return [_or_refusal(_read_waiting, answer) for answer in answers]

    def trim(self, key: str, epoch: int, number: int, *, is_over: bool) -> None:
        """Postgres has what there is up to this entry; or (is_over) the run has ended, or was recalled: of what is
        there under this epoch, or an older one, the epoch alone is left."""
        self.servers.of(key).run("trim", key, str(epoch), str(number), str(REMEMBERED_MS) if is_over else "")

    def trim_many(self, server: Server, done: Sequence[tuple[str, int, int, bool]]) -> list[bool]:
        """(key, epoch, number, whether the run has ended there) of each; which of them were told so."""
        calls = [(key, str(epoch), str(n), str(REMEMBERED_MS) if is_over else "") for key, epoch, n, is_over in done]
        return [not isinstance(answer, RedisTierUnavailable) for answer in server.run_many("trim", calls)]

    def renew_many(self, server: Server, held: Sequence[tuple[Place, Held]]) -> None:
        """Their holder works on them. Nothing where a lease is lost."""
        calls = [
            (place.key, str(place.epoch), one.checkpoint_id.hex, one.execution_id.hex, str(one.fence), str(KEPT_MS))
            for place, one in held
        ]
        server.run_many("renew", calls)

    def look_many(self, server: Server, places: Sequence[Place]) -> list[Look | RedisTierUnavailable | None]:
        """None where Redis knows nothing of it; an error where it cannot be told now, and others can."""
        answers = server.run_many("look", [(place.key, str(place.epoch)) for place in places])
        return [_or_refusal(_read_look, answer) for answer in answers]

    def look(self, place: Place) -> Look | None:
        """Of one thread; None where Redis knows nothing of it."""
        return _read_look(self.servers.of(place.key).run("look", place.key, str(place.epoch)))

    def send_again(self, server: Server, late: Sequence[tuple[Place, Open]]) -> list[bool]:
        """Whether the message of each is to be sent now: it still waits for a worker, and is noted as sent."""
        calls = [(place.key, str(place.epoch), one.checkpoint_id.hex, one.execution_id.hex) for place, one in late]
        return [answer == 1 for answer in server.run_many("again", calls)]

    def _call(self, name: str, place: Place, header: Mapping[str, Any], *parts: bytes) -> list[bytes]:
        answer: list[bytes] = self.servers.of(place.key).run(name, place.key, ormsgpack.packb(dict(header)), *parts)
        return answer


def message_of_open(place: Place, graph_id: str, one: Open) -> ExecuteNode:
    key = (place.tenant_id, place.home, place.run_id, one.checkpoint_id, one.execution_id)
    message = ExecuteNode(*key, graph_id=graph_id, node=one.node, queue=one.queue)
    return message if message.kind == "start" else message.in_redis(place.thread_id, place.epoch)


# --------------------------------------------------------------------------- names and rows


def name_of(row: WriteRow) -> str:
    return f"{row.owner.hex}{row.task_id.hex}{row.idx}"


def dump_row(row: WriteRow) -> bytes:
    return ormsgpack.packb([row.path, row.body])


def _load_row(name: bytes, data: bytes) -> WriteRow:
    text = name.decode()
    path, body = ormsgpack.unpackb(data)
    return WriteRow(UUID(text[:32]), UUID(text[32:64]), int(text[64:]), path, body)


def _lease(place: Place, held: Held) -> dict[str, Any]:
    return {
        "ep": str(place.epoch),
        "run": place.run_id.hex,
        "ck": held.checkpoint_id.hex,
        "ex": held.execution_id.hex,
        "tok": str(held.fence),
    }


def _hex(value: UUID | None) -> str:
    return value.hex if value else ""


def _text(value: bytes) -> str:
    return value.decode()


def _read_head(answer: Sequence[Any], at: int) -> tuple[Head | None, int]:
    body, count = answer[at], int(answer[at + 1])
    end = at + 2 + 2 * count
    blobs = {_text(answer[i]): answer[i + 1] for i in range(at + 2, end, 2)}
    return (Head(body, blobs) if body else None), end


def _read_writes(answer: Sequence[Any], at: int) -> tuple[list[WriteRow], int]:
    end = at + 1 + 2 * int(answer[at])
    return [_load_row(answer[i], answer[i + 1]) for i in range(at + 1, end, 2)], end


def _or_refusal(
    read: Callable[[Sequence[Any]], T], answer: Sequence[Any] | RedisTierUnavailable
) -> T | RedisTierUnavailable:
    return answer if isinstance(answer, RedisTierUnavailable) else read(answer)


def _read_waiting(answer: Sequence[Any]) -> Waiting | None:
    if answer[0] == b"none":
        return None
    entries = []
    for i in range(5, len(answer), 3):
        entry_id, worker, begun, over, *released = _text(answer[i + 1]).split(",")
        sibling = UUID(released[0]) if released else None
        entries.append(
            Entry(int(answer[i]), UUID(entry_id), int(worker), int(begun), int(over), answer[i + 2], sibling)
        )
    before = UUID(_text(answer[4])) if answer[4] else None
    return Waiting(int(answer[0]), UUID(_text(answer[1])), int(answer[2]), before, entries)


def _sibling(execution: bytes, place: bytes) -> tuple[UUID, str, str]:
    node, _, queue = _text(place).partition("\0")
    return UUID(_text(execution)), node, queue


def _read_look(answer: Sequence[Any]) -> Look | None:
    if answer[0] == b"none":
        return None
    found = []
    for i in range(5, len(answer), 6):
        execution, node, queue = _sibling(answer[i + 1], answer[i + 2])
        worker = int(answer[i + 3]) if answer[i + 3] else None
        age_seconds, times = int(answer[i + 4]) / 1000, int(answer[i + 5])
        found.append(Open(UUID(_text(answer[i])), execution, node, queue, worker, age_seconds, times))
    return Look(int(answer[0]), _text(answer[1]), _text(answer[2]), int(answer[3]), int(answer[4]), found)
