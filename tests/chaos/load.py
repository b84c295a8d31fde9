"""Many users of several tenants, each through the official client, each as careful as a real one.

No answer, or a 5xx: ask again, at another web process. Each run is asked for under an Idempotency-Key, so that a
request whose answer was lost makes no second one; a run carries in its metadata what it was asked for (`Ask`).
"""

import asyncio
import contextlib
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import httpx
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import APIConnectionError

from tests.chaos.graphs import CONFIG, GRAPHS

T = TypeVar("T")

Way = Literal["poll", "join", "stream"]

WAYS: Final[Sequence[Way]] = ("poll", "join", "stream", "stream")

TERMINAL: Final = frozenset({"success", "error", "interrupted", "timeout"})

#: What may be "ask again": the connection, a timeout, a status (5xx, see `pause`).
AGAIN: Final = (httpx.TransportError, APIConnectionError, httpx.HTTPStatusError)

SERVER_ERROR: Final = 500

#: Between two tries of one user, and between two looks at a run that is not over.
PAUSE_SECONDS = (0.1, 0.8)
LOOK_SECONDS = 0.3

TIMEOUT = httpx.Timeout(20.0, connect=5.0)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client asked for. name: unique, and in the run's metadata. durability: "async" may cost executions when
    Postgres dies, and nothing else."""

    name: str
    tenant: str
    graph: str
    thread_id: str
    input: Mapping[str, Any] | None = None
    resume: str | None = None
    durability: Literal["sync", "async"] = "sync"


@dataclass
class Book:
    """What the clients know: what they asked for, what was acknowledged, what they were told."""

    asks: dict[str, Ask] = field(default_factory=dict)
    acknowledged: dict[str, Ask] = field(default_factory=dict)  # by run id
    statuses: dict[str, set[str]] = field(default_factory=dict)  # terminal ones that a client was told, by run id
    answers: dict[str, Any] = field(default_factory=dict)  # of runs that stopped to ask, by run id
    streams: dict[str, list[tuple[str, str, Any]]] = field(default_factory=dict)  # (id, event, data), by run id
    retries: Counter[str] = field(default_factory=Counter)  # by error
    rejoins: int = 0
    refusals: list[str] = field(default_factory=list)  # 4xx: none is expected

    def told(self, run_id: str, status: str) -> None:
        self.statuses.setdefault(run_id, set()).add(status)


@dataclass
class User:
    """One conversation after the other, until the load is over.

    canary   the tenant's own word: in all that it asks for, and in nothing of another's
    clients  one a web process; after each failure the next is asked
    """

    name: str
    tenant: str
    canary: str
    clients: Sequence[LangGraphClient]
    book: Book
    rng: random.Random
    over: asyncio.Event
    asked: int = 0
    at: int = 0

    @property
    def client(self) -> LangGraphClient:
        return self.clients[self.at % len(self.clients)]

    async def live(self) -> None:
        while not self.over.is_set():
            graph = self.rng.choice(sorted(GRAPHS))
            thread_id = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
            await self.persist(
                lambda thread_id=thread_id: self.client.threads.create(thread_id=thread_id, if_exists="do_nothing")  # type: ignore[misc]
            )
            for _ in range(self.rng.randint(1, 3)):
                if self.over.is_set():
                    break
                await self.turn(graph, thread_id)

    async def turn(self, graph: str, thread_id: str) -> None:
        """One run, and a second with the answer where the first asks."""
        words = f"{self.canary}-{self.name}-{self.asked}"
        status = await self.run(graph, thread_id, input={"asked": words})
        if status == "interrupted":
            await self.run(graph, thread_id, resume=f"yes {words}")

    async def run(self, graph: str, thread_id: str, **what: Any) -> str:
        """Its terminal status, as this client was told."""
        self.asked += 1
        durability: Literal["sync", "async"] = "async" if self.asked % 2 else "sync"
        ask = Ask(f"{self.name}.{self.asked}", self.tenant, graph, thread_id, durability=durability, **what)
        self.book.asks[ask.name] = ask
        run_id = await self.create(ask)
        self.book.acknowledged[run_id] = ask
        way = self.rng.choice(WAYS)
        if way == "stream":
            await self.stream(thread_id, run_id)
        elif way == "join":
            await self.persist(lambda: self.client.runs.join(thread_id, run_id))
        return await self.end_of(thread_id, run_id)

    async def create(self, ask: Ask) -> str:
        """The id of a run that the farm has acknowledged."""
        run = await self.persist(
            lambda: self.client.runs.create(
                ask.thread_id,
                ask.graph,
                input=ask.input,
                command={"resume": ask.resume} if ask.resume is not None else None,
                config=CONFIG.get(ask.graph),
                metadata={"ask": ask.name},
                multitask_strategy="enqueue",
                stream_mode=["updates", "custom"],
                stream_resumable=True,
                durability=ask.durability,
                headers={"Idempotency-Key": ask.name},
            )
        )
        return str(run["run_id"])

    async def end_of(self, thread_id: str, run_id: str) -> str:
        while True:
            run = await self.persist(lambda: self.client.runs.get(thread_id, run_id))
            if run["status"] in TERMINAL:
                self.book.told(run_id, run["status"])
                if run["status"] == "interrupted":  # its answer is gone once another run has taken the question away
                    self.book.answers[run_id] = await self.persist(lambda: self.client.runs.join(thread_id, run_id))
                return str(run["status"])
            await asyncio.sleep(LOOK_SECONDS)

    async def stream(self, thread_id: str, run_id: str) -> None:
        """Read from the start; after each loss go on behind the last id."""
        events = self.book.streams.setdefault(run_id, [])
        while True:
            last = events[-1][0] if events else "0-0"
            try:
                async for part in self.client.runs.join_stream(thread_id, run_id, last_event_id=last):
                    events.append((str(part.id), part.event, part.data))
                    if part.event == "end":
                        return
            except AGAIN as error:
                await self.pause(error)
            self.book.rejoins += 1

    async def persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """For what may be asked twice."""
        while True:
            try:
                return await ask()
            except AGAIN as error:
                await self.pause(error)

    async def pause(self, error: Exception) -> None:
        """Before the next try, at another web. Raises what is no reason to try again: the client's own fault, a 4xx."""
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < SERVER_ERROR:
            raise error
        self.book.retries[type(error).__name__] += 1
        self.at += 1
        await asyncio.sleep(self.rng.uniform(*PAUSE_SECONDS))


@contextlib.asynccontextmanager
async def clients_of(urls: Sequence[str], key: str) -> AsyncIterator[list[LangGraphClient]]:
    """One a web process."""
    async with contextlib.AsyncExitStack() as opened:
        made = [get_client(url=url, api_key=key, timeout=TIMEOUT) for url in urls]
        yield [await opened.enter_async_context(client) for client in made]


@dataclass
class Load:
    """urls      of the web processes
    users     how many at once, shared out among the tenants
    canaries  tenant → its word
    """

    urls: Sequence[str]
    keys: Mapping[str, str]
    canaries: Mapping[str, str]
    seed: int
    users: int
    book: Book = field(default_factory=Book)

    async def run(self, over: asyncio.Event, *, patience_seconds: float) -> None:
        """Until `over` is set and every user has the answer to its last run.

        raises  TimeoutError, which names the runs that did not end within patience_seconds of `over`
        """
        async with asyncio.TaskGroup() as group:
            users = [group.create_task(self._user(number, over)) for number in range(self.users)]
            await over.wait()
            _, late = await asyncio.wait(users, timeout=patience_seconds)
            for task in late:
                task.cancel()
        if late:
            waiting = [run for run in self.book.acknowledged if run not in self.book.statuses]
            raise TimeoutError(
                f"{len(late)} of {self.users} users have no answer {patience_seconds:.0f} s after the last fault; "
                f"runs that nobody saw end: {waiting or 'none; they wait for the API'}"
            )

    async def _user(self, number: int, over: asyncio.Event) -> None:
        tenant = sorted(self.keys)[number % len(self.keys)]
        async with clients_of(self.urls, self.keys[tenant]) as clients:
            rng = random.Random(f"user {number} of {self.seed}")
            user = User(f"u{number}", tenant, self.canaries[tenant], clients, self.book, rng, over, at=number)
            try:
                await user.live()
            except httpx.HTTPStatusError as error:
                self.book.refusals.append(f"{user.name}: {error.response.status_code} {error.response.text[:300]}")
