"""3 and 4: a whole run as a client sees it, `runs.wait` of langgraph_sdk ÷ the same graph called in process."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from langgraph_sdk.client import SyncLangGraphClient

from benchmarks.driver import Durability
from benchmarks.rounds import Cell, Figures, Ratio, Table, alternate, percentile
from benchmarks.stock import INPUTS, StockRunner

STOCK = "stock in process"
SDK = "farm, runs.wait"
#: Nothing but the admission and the end waits for the disk.
ASYNC = "farm, run-ahead, async"

#: How runs are executed otherwise: {row: config.agentfarm}.
OTHERWISE: dict[str, dict[str, Any]] = {
    "farm, run-ahead": {"run_ahead": True},
    ASYNC: {"run_ahead": True},
    "farm, Redis": {"persistence": "redis"},
    "farm, Redis, run-ahead": {"persistence": "redis", "run_ahead": True},
}

#: {graph: whether the answer is right}: a fast wrong answer is no figure.
IS_RIGHT: dict[str, Callable[[dict[str, Any]], bool]] = {
    "chain10": lambda values: values.get("steps") == ["in", *(f"n{number}" for number in range(10))],
    "fanout": lambda values: values.get("total") == sum(range(100)),
}


def measure_chain(client: SyncLangGraphClient, stock: StockRunner, *, rounds: int, runs: int) -> Table:
    rows = _measure("chain10", client, stock, rounds, runs)
    notes = [f"Milliseconds, {runs} runs a round, one at a time, a new thread each."]
    ratio = Ratio("p50", STOCK, "the farm's p50 at most 60 ms, with run-ahead 35 ms")
    return Table("3 A run of ten nodes", rows, [ratio], notes)


def measure_fanout(client: SyncLangGraphClient, stock: StockRunner, *, rounds: int, runs: int) -> Table:
    rows = _measure("fanout", client, stock, rounds, runs)
    notes = [
        f"Milliseconds, {runs} runs a round, one at a time: plan, 100 node executions beside each other, gather.",
        "Stock executes them as threads of one process; the farm leases, fences and commits each.",
    ]
    return Table("4 A fan-out of 100 Sends", rows, [Ratio("p50", STOCK, "at most 1.5")], notes)


def _measure(
    graph_id: str, client: SyncLangGraphClient, stock: StockRunner, rounds: int, runs: int
) -> dict[str, list[Figures]]:
    cells = [
        Cell(STOCK, lambda: _timed(lambda: stock.run(graph_id), runs)),
        Cell(SDK, lambda: _timed(lambda: wait_for_answer(client, graph_id), runs)),
        *(_otherwise(name, asked, client, graph_id, runs) for name, asked in OTHERWISE.items()),
    ]
    for cell in cells:
        cell.measure()
    return alternate(cells, rounds)


def _otherwise(name: str, asked: dict[str, Any], client: SyncLangGraphClient, graph_id: str, runs: int) -> Cell:
    durability: Durability = "async" if name == ASYNC else "sync"
    return Cell(name, lambda: _timed(lambda: wait_for_answer(client, graph_id, durability, **asked), runs))


def wait_for_answer(client: SyncLangGraphClient, graph_id: str, durability: Durability = "sync", **asked: Any) -> None:
    """One run on a new thread. asked: how it is to be executed. Raises RuntimeError for a wrong answer."""
    thread_id = str(uuid.uuid4())
    answer: Any = client.runs.wait(
        thread_id,
        graph_id,
        input=INPUTS[graph_id],
        durability=durability,
        if_not_exists="create",
        config={"agentfarm": asked},  # type: ignore[typeddict-unknown-key]  # a key of ours
    )
    if not isinstance(answer, dict) or not IS_RIGHT[graph_id](answer):
        raise RuntimeError(f"runs.wait answered something else than the values of {graph_id}")


def _timed(run: Callable[[], None], runs: int) -> Figures:
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1e3)
    return {"p50": percentile(times, 0.5), "p95": percentile(times, 0.95)}
