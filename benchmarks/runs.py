"""3: a run of ten no-op nodes as a client sees it: `runs.wait` of langgraph_sdk ÷ the same graph called in process."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from langgraph_sdk.client import SyncLangGraphClient

from benchmarks.rounds import Cell, Figures, Ratio, Table, alternate, percentile
from benchmarks.stock import INPUTS, StockRunner

STOCK = "stock in process"
SDK = "farm, runs.wait"
GRAPH = "chain10"


def measure_runs(client: SyncLangGraphClient, stock: StockRunner, *, rounds: int, runs: int) -> Table:
    cells = [
        Cell(STOCK, lambda: _timed(lambda: stock.run(GRAPH), runs)),
        Cell(SDK, lambda: _timed(lambda: wait_for_answer(client), runs)),
    ]
    for cell in cells:
        cell.measure()
    rows = alternate(cells, rounds)
    notes = [f"Milliseconds, {runs} runs a round, one at a time, a new thread each."]
    return Table("3 A run of ten nodes", rows, Ratio("p50", STOCK, "p50 of the farm at most 60 ms"), notes)


def wait_for_answer(client: SyncLangGraphClient) -> None:
    """One run. Raises RuntimeError when the answer is not the chain's: a fast wrong answer is no figure."""
    thread_id = str(uuid.uuid4())
    answer: Any = client.runs.wait(thread_id, GRAPH, input=INPUTS[GRAPH], durability="sync", if_not_exists="create")
    if not isinstance(answer, dict) or answer.get("steps") != ["in", *(f"n{number}" for number in range(10))]:
        raise RuntimeError("runs.wait answered something else than the chain's values")


def _timed(run: Callable[[], None], runs: int) -> Figures:
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1e3)
    return {"p50": percentile(times, 0.5), "p95": percentile(times, 0.95)}
