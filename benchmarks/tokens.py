"""9: tokens as a client of langgraph_sdk gets them ÷ `astream` of the same graph in process.

The model says each token after the same time, and the first one too: what the first takes beyond that is the farm's,
from the request through admission, broker, worker and stream to the client.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph_sdk.client import SyncLangGraphClient
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from benchmarks.graphs import TOKEN, speaker_builder
from benchmarks.rounds import Cell, Figures, Ratio, Table, alternate, percentile
from benchmarks.stock import OPTIONS

STOCK = "stock, astream"
SDK = "farm, runs.stream"
REDIS = "farm, Redis"

#: Seconds before each token: as fast as a machine can, and as a fast model speaks.
PACES = (0.0, 0.01)


@dataclass(frozen=True, slots=True)
class Heard:
    """Seconds from the request until the first token, until the last, and until the stream's end."""

    first: float
    last: float
    end: float


def measure_tokens(
    client: SyncLangGraphClient, stock_url: str, *, rounds: int, runs: int, tokens: int
) -> Iterator[Table]:
    """A table a pace. stock_url: where the baseline's tables are."""
    for pace in PACES:
        said = {"tokens": tokens, "pace_seconds": pace}
        yield _measure(client, stock_url, said, rounds, runs)


def _measure(client: SyncLangGraphClient, stock_url: str, said: dict[str, Any], rounds: int, runs: int) -> Table:
    tokens, pace = said["tokens"], said["pace_seconds"]
    cells = [
        Cell(STOCK, lambda: figures(asyncio.run(hear_stock(stock_url, said, runs)), pace)),
        Cell(SDK, lambda: figures([hear_farm(client, said, "postgres") for _ in range(runs)], pace)),
        Cell(REDIS, lambda: figures([hear_farm(client, said, "redis") for _ in range(runs)], pace)),
    ]
    for cell in cells:
        cell.measure()
    rows = alternate(cells, rounds)
    notes = [
        f"Milliseconds, {runs} runs a round, one at a time, a new thread each; {tokens} tokens of one chat model.",
        "The first token: beyond the model's own time to it. All tokens: from the request to the last one.",
        "The end: from the last token until the client knows that the run is over, and all of it is in Postgres.",
        "Stock: AsyncPostgresSaver, durability sync. The farm: HTTP, a worker, a Redis stream, the official client.",
        "Asked for: first token at most 25 ms (p50); with Redis it and the end at most 5 ms later than without.",
    ]
    title = f"9 {tokens} tokens, {f'{pace * 1e3:.0f} ms apart' if pace else 'as fast as they come'}"
    return Table(title, rows, [Ratio("all, p50", STOCK, "all tokens at most 1.3 of stock's")], notes)


def figures(heard: list[Heard], pace: float) -> Figures:
    first = [(one.first - pace) * 1e3 for one in heard]
    return {
        "first, p50": percentile(first, 0.5),
        "first, p95": percentile(first, 0.95),
        "all, p50": percentile([one.last * 1e3 for one in heard], 0.5),
        "end, p50": percentile([(one.end - one.last) * 1e3 for one in heard], 0.5),
    }


def hear_farm(client: SyncLangGraphClient, said: dict[str, Any], persistence: str) -> Heard:
    """One run on a new thread. Raises RuntimeError where a token is missing."""
    began = time.perf_counter()
    stream = client.runs.stream(
        str(uuid.uuid4()),
        "speaker",
        input=said,
        config={"agentfarm": {"persistence": persistence}},  # type: ignore[typeddict-unknown-key]  # the farm's own
        stream_mode="messages-tuple",
        durability="sync",
        if_not_exists="create",
    )
    times = [time.perf_counter() - began for part in stream if part.event == "messages" and part.data[0]["content"]]
    return _heard(times, time.perf_counter() - began, said)


async def hear_stock(url: str, said: dict[str, Any], runs: int) -> list[Heard]:
    async with await AsyncConnection.connect(
        url, autocommit=True, prepare_threshold=0, row_factory=dict_row, options=OPTIONS
    ) as connection:
        graph = speaker_builder().compile(checkpointer=AsyncPostgresSaver(connection))
        return [await _hear(graph, said) for _ in range(runs)]


async def _hear(graph: Any, said: dict[str, Any]) -> Heard:
    began = time.perf_counter()
    config = {"configurable": {"thread_id": uuid.uuid4().hex}}
    chunks: AsyncIterator[Any] = graph.astream(said, config, stream_mode="messages", durability="sync")
    times = [time.perf_counter() - began async for chunk, _ in chunks if chunk.content]
    return _heard(times, time.perf_counter() - began, said)


def _heard(times: list[float], end: float, said: dict[str, Any]) -> Heard:
    if len(times) != said["tokens"]:
        raise RuntimeError(f"{len(times)} pieces of an answer came, not {said['tokens']} times {TOKEN!r}")
    return Heard(times[0], times[-1], end)
