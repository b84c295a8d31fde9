"""10: a turn of a chat at message 10,000 ÷ at message 10, in time and in bytes written; beside it, stock's.

Messages as one value (add_messages) are saved whole by each of stock's steps that adds to them, by the farm as what is
added. A DeltaChannel saves what is added, and now and then all of it.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from langgraph_sdk.client import SyncLangGraphClient

from benchmarks.driver import Driver
from benchmarks.rounds import Cell, Figures, Ratio, Table, alternate, percentile
from benchmarks.stock import StockRunner

STOCK = "stock in process"
FARM = "farm, runs.stream"
REDIS = "farm, Redis"
SHORT = 10

#: {graph: what holds its messages}
KINDS = {"chat": "messages as one value (add_messages)", "delta_chat": "messages in a DeltaChannel"}

TURN = {"messages": [{"role": "user", "content": "Is it so?"}]}

#: Letters of a message.
LENGTH = 100

#: Turns that are taken before it is measured: connections, plans, caches.
WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Side:
    """Who holds two threads, a short and a long one. turn: takes one on the thread of that id."""

    name: str
    threads: dict[int, str]
    turn: Callable[[str], None]


def measure_chat(
    driver: Driver, client: SyncLangGraphClient, stock: StockRunner, *, rounds: int, runs: int, history: int
) -> Iterator[Table]:
    """A table a kind of channel. history: messages of the long thread."""
    for graph_id, what in KINDS.items():
        print(f" {what} …", flush=True)
        sides = [
            _stock_side(stock, graph_id, history),
            _farm_side(FARM, driver, client, graph_id, history),
            _farm_side(REDIS, driver, client, graph_id, history, persistence="redis"),
        ]
        cells = [Cell(side.name, lambda side=side: _turns(driver, side, history, runs)) for side in sides]
        for side in sides:
            for thread_id in list(side.threads.values()) * WARM_UP:
                side.turn(thread_id)
        notes = [
            f"{runs} turns a round on each of two threads, one at a time; messages of {LENGTH} letters. p50 of a turn.",
            "kB: what Postgres wrote into its log, a turn. The farm's has admission, leases and the run's record too.",
            "The farm: HTTP, two workers, events of mode updates. A turn at the end of either thread reads all of it.",
        ]
        limit = f"the farm's times at {history:,} at most 1.2, in ms and in kB"
        yield Table(f"10 A turn, {what}", alternate(cells, rounds), [Ratio("ms, times", STOCK, limit)], notes)


def _stock_side(stock: StockRunner, graph_id: str, history: int) -> Side:
    threads = {length: uuid.uuid4().hex for length in (SHORT, history)}
    for length, thread_id in threads.items():
        stock.run(graph_id, said(length), thread_id=thread_id)
    return Side(STOCK, threads, lambda thread_id: stock.run(graph_id, TURN, thread_id=thread_id))


def _farm_side(
    name: str, driver: Driver, client: SyncLangGraphClient, graph_id: str, history: int, **asked: Any
) -> Side:
    """asked: how its runs are to be executed."""
    threads = {length: uuid.uuid4() for length in (SHORT, history)}
    for length, thread_id in threads.items():
        driver.run(graph_id, said(length), thread_id=thread_id)

    def turn(thread_id: str) -> None:
        stream = client.runs.stream(
            thread_id,
            graph_id,
            input=TURN,
            stream_mode="updates",
            durability="sync",
            config={"agentfarm": asked},  # type: ignore[typeddict-unknown-key]  # a key of ours
        )
        parts = list(stream)
        if [part.event for part in parts[-2:]] != ["updates", "end"]:
            raise RuntimeError(f"a turn of {graph_id} was not answered")

    return Side(name, {length: str(thread_id) for length, thread_id in threads.items()}, turn)


def said(length: int) -> dict[str, Any]:
    """A chat up to its last but one message: the graph answers with one more."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[number % 2], "content": f"{number:0{LENGTH}}"} for number in range(length - 1)]}


def _turns(driver: Driver, side: Side, history: int, runs: int) -> Figures:
    """The two threads by turns, since a minute later the machine is another."""
    times: dict[int, list[float]] = {length: [] for length in side.threads}
    written = dict.fromkeys(side.threads, 0)
    for _ in range(runs):
        for length, thread_id in side.threads.items():
            began, before = time.perf_counter(), driver.watcher.log_bytes()
            side.turn(thread_id)
            times[length].append((time.perf_counter() - began) * 1e3)
            written[length] += driver.watcher.log_bytes() - before
    took = {length: percentile(values, 0.5) for length, values in times.items()}
    kilobytes = {length: size / runs / 1e3 for length, size in written.items()}
    return {
        f"ms at {SHORT}": took[SHORT],
        f"ms at {history:,}": took[history],
        "ms, times": took[history] / took[SHORT],
        f"kB at {SHORT}": kilobytes[SHORT],
        f"kB at {history:,}": kilobytes[history],
        "kB, times": kilobytes[history] / kilobytes[SHORT],
    }
