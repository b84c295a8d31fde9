"""Users who talk at a steady pace, look whether each answer is right, and leave nothing behind.

The storm of tests/chaos keeps all that was said until its end; a soak lasts for hours, so each conversation is compared
with stock LangGraph when it is over, and forgotten by the user: half of them are deleted through the API, the rest is
left to the farm's own retention.
"""

import asyncio
import contextlib
import random
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from langgraph_sdk.errors import NotFoundError

from tests.chaos import oracle
from tests.chaos.graphs import GRAPHS
from tests.chaos.load import Ask, Book, User, clients_of

#: Turns of which the time is kept, for the sample that comes next.
KEPT_TURNS = 1000


@dataclass
class Told:
    """What the users of a soak know, in numbers: nothing in it grows with time but what is wrong.

    seconds  that the latest turns took; whoever samples empties it
    """

    turns: int = 0
    threads: int = 0
    deleted: int = 0
    asked_again: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TURNS))
    wrong: list[str] = field(default_factory=list)


@dataclass
class Steady(User):
    """pace_seconds  from the beginning of a turn to that of the next, unless the turn takes longer
    ledger        the folder of tests/chaos/graphs.py, a file a run
    """

    told: Told = field(default_factory=Told)
    pace_seconds: float = 2.0
    ledger: Path = Path()

    async def live(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, self.pace_seconds))  # not all at once
        while not self.over.is_set():
            graph = self.rng.choice(sorted(GRAPHS))
            thread_id = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
            await self.persist(
                lambda thread_id=thread_id: self.client.threads.create(thread_id=thread_id, if_exists="do_nothing")  # type: ignore[misc]
            )
            for _ in range(self.rng.randint(1, 3)):
                began = time.monotonic()
                await self.turn(graph, thread_id)
                self.told.turns += 1
                self.told.seconds.append(time.monotonic() - began)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.over.wait(), began + self.pace_seconds - time.monotonic())
            await self.leave(thread_id)

    async def leave(self, thread_id: str) -> None:
        """Compare what the thread holds with stock LangGraph's, and be done with it."""
        runs = await self.persist(lambda: self.client.runs.list(thread_id, limit=100))
        runs = sorted(runs, key=lambda run: run["created_at"])  # also those whose request got no answer
        statuses = [await self.end_of(thread_id, run["run_id"]) for run in runs]
        state = await self.persist(lambda: self.client.threads.get_state(thread_id))
        asks = [self.book.asks[run["metadata"]["ask"]] for run in runs]
        self.told.wrong += await differences(thread_id, asks, statuses, state["values"])
        self.told.threads += 1
        self.told.asked_again += self.book.retries.total()
        for run in runs:
            (self.ledger / run["run_id"]).unlink(missing_ok=True)
        self.book = Book()
        if self.rng.random() < 0.5:
            with contextlib.suppress(NotFoundError):  # a request before did it, whose answer was lost
                await self.persist(lambda: self.client.threads.delete(thread_id))
            self.told.deleted += 1


async def differences(
    thread_id: str, asks: Sequence[Ask], statuses: Sequence[str], state: Mapping[str, Any]
) -> list[str]:
    """What is other than stock LangGraph's; a node committed twice is a line too many of its `log`."""
    expected = await oracle.answers(asks)
    found = []
    for ask, status, values in zip(asks, statuses, expected, strict=True):
        wanted = "interrupted" if "__interrupt__" in values else "success"
        if status != wanted:
            found.append(f"{ask.name} of {ask.graph} on thread {thread_id} ended as {status}, not as {wanted}")
    last = {name: value for name, value in expected[-1].items() if name != "__interrupt__"}
    if state != last:
        found.append(f"thread {thread_id} holds {state}, stock LangGraph's {last}")
    return found


async def talk(
    urls: Sequence[str],
    keys: Mapping[str, str],
    told: Told,
    ledger: Path,
    *,
    seed: int,
    users: int,
    pace_seconds: float,
    seconds: float,
    patience_seconds: float,
) -> None:
    """For so many seconds, and until every conversation is over. What is wrong is in `told`."""
    over = asyncio.Event()

    async def live(number: int) -> None:
        tenant = sorted(keys)[number % len(keys)]
        name = f"u{number}"
        async with clients_of(urls, keys[tenant]) as clients:
            rng = random.Random(f"user {number} of {seed}")
            user = Steady(name, tenant, tenant, clients, Book(), rng, over, 0, number, told, pace_seconds, ledger)
            try:
                await user.live()
            except httpx.HTTPStatusError as error:
                told.wrong.append(f"{name} was refused: {error.response.status_code} {error.response.text[:300]}")

    async with asyncio.TaskGroup() as group:
        living = [group.create_task(live(number)) for number in range(users)]
        await asyncio.wait(living, timeout=seconds, return_when=asyncio.ALL_COMPLETED)
        over.set()
        _, late = await asyncio.wait(living, timeout=patience_seconds)
        for one in late:
            one.cancel()
        told.wrong += [f"a user had no answer {patience_seconds:.0f} s after the last fault" for _ in late]
