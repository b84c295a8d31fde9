"""Clients of the official SDK that follow runs while processes come and go: streams that resume, and joins."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import APIStatusError

from examples.twelve_steps.graph import NAMES, expected_digest
from tests.farm import FarmProcesses

T = TypeVar("T")

FROM_THE_START = "-1"


class Over(Exception):
    """The test ends."""


class Watchers:
    """One thread each that streams, and one that joins, for every web; where one web is away they turn to the next.

    seen   runs that were followed to their end
    told   what clients were told besides: names of errors, or the status
    wrong  what must not be: an answer or a line of events that is not the run's
    """

    def __init__(self, farm: FarmProcesses, urls: Sequence[str]) -> None:
        self.seen: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._ends = threading.Event()
        self._key = farm.keys["demo"]
        self._urls = list(urls)
        self._threads = [
            threading.Thread(target=self._go_on, args=(follow, number))
            for follow in (self._stream, self._join)
            for number in range(len(urls))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(90)

    def _go_on(self, follow: "Callable[[_Client, str, str, str], None]", number: int) -> None:
        name = f"{follow.__name__}-{number}"
        with _clients(self._urls[number:] + self._urls[:number], self._key) as client:
            count = 0
            while not self._ends.is_set():
                count += 1
                seed = f"{name}-{count}"
                try:
                    thread, run = self._begin(client, seed)
                    follow(client, thread, run, seed)
                except Over:
                    return
                except Exception as error:  # a thread's exception would be nobody's
                    self.wrong.append(f"{name}: {error!r}")
                    return
                self.seen[follow.__name__] += 1

    def _begin(self, client: "_Client", seed: str) -> tuple[str, str]:
        thread = self._ask(client, lambda sdk: sdk.threads.create())["thread_id"]
        run = self._ask(
            client,
            lambda sdk: sdk.runs.create(
                thread,
                "twelve_steps",
                input={"delay_seconds": 0.1, "seed": seed},
                stream_mode=["updates"],
                headers={"idempotency-key": f"{thread}-{seed}"},
            ),
        )["run_id"]
        return str(thread), str(run)

    def _stream(self, client: "_Client", thread: str, run: str, seed: str) -> None:
        """Each event once and in order, however often the stream was cut."""
        last, ids, steps = FROM_THE_START, [], []
        while "end" not in steps:
            parts = self._ask(client, partial(_parts, thread, run, last))
            for part in self._read(client, parts):
                last = part.id or last
                ids.append(part.id)
                steps += list(part.data) if part.event == "updates" else [part.event]
        told = [step for step in steps if step != "metadata"]
        if told != [*NAMES, "end"] or len(set(ids)) != len(ids):
            self.wrong.append(f"{seed}: {steps} {ids}")

    def _join(self, client: "_Client", thread: str, run: str, seed: str) -> None:
        answer: Any = self._ask(client, lambda sdk: sdk.runs.join(thread, run))
        if answer["digest"] != expected_digest(seed):
            self.wrong.append(f"{seed}: {answer}")

    def _ask(self, client: "_Client", ask: Callable[[SyncLangGraphClient], T]) -> T:
        while not self._ends.is_set():
            try:
                return ask(client.now)
            except (httpx.TransportError, APIStatusError) as error:
                self._note(client, error)
        raise Over

    def _read(self, client: "_Client", parts: Iterator[Any]) -> Iterator[Any]:
        """Up to where the stream was cut for good: the SDK itself comes back to the same web a few times."""
        try:
            for part in parts:
                yield part
                if self._ends.is_set():
                    raise Over
        except (httpx.TransportError, APIStatusError) as error:
            self._note(client, error)

    def _note(self, client: "_Client", error: httpx.TransportError | APIStatusError) -> None:
        if isinstance(error, APIStatusError):
            promised = (
                "" if error.status_code != 503 or "retry-after" in error.response.headers else " without retry-after"
            )
            self.told[f"{error.status_code}{promised}"] += 1
        else:
            self.told[type(error).__name__] += 1
        client.turn()
        self._ends.wait(0.1)


def _parts(thread: str, run: str, last: str, sdk: SyncLangGraphClient) -> Iterator[Any]:
    return sdk.runs.join_stream(thread, run, stream_mode=["updates"], last_event_id=last)


class _Client:
    """The SDK's client of one web, and of the next after `turn`."""

    def __init__(self, sdks: list[SyncLangGraphClient]) -> None:
        self._sdks, self._at = sdks, 0

    @property
    def now(self) -> SyncLangGraphClient:
        return self._sdks[self._at % len(self._sdks)]

    def turn(self) -> None:
        self._at += 1


@contextmanager
def _clients(urls: Sequence[str], key: str) -> Iterator[_Client]:
    with ExitStack() as open_ones:
        yield _Client([open_ones.enter_context(get_sync_client(url=url, api_key=key)) for url in urls])
