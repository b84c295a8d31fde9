"""1: nodes a second through the farm ÷ stock LangGraph in process on the same cores, and ÷ the farm's Postgres tier."""

from collections.abc import Callable, Mapping, Sequence

from agentfarm.run_options import RunChoices
from benchmarks import cpu
from benchmarks.driver import Driver
from benchmarks.rounds import Cell, Figures, Ratio, Table, alternate, epoch_seconds
from benchmarks.stock import StockProcesses

IN_FLIGHT = 30
NODES = 10
STOCK = "stock in process"
FARM = "farm, a Celery task a node"
#: Nothing but the admission and the end waits for the disk.
ASYNC = "farm, run-ahead, async"

#: How runs are executed otherwise: {row: what they ask for}.
OTHERWISE: Mapping[str, RunChoices] = {
    "farm, run-ahead": RunChoices(run_ahead=True),
    ASYNC: RunChoices(run_ahead=True),
    "farm, Redis": RunChoices(persistence="redis"),
    "farm, Redis, run-ahead": RunChoices(persistence="redis", run_ahead=True),
}


def measure_throughput(
    driver: Driver,
    stock: StockProcesses,
    *,
    servers: Mapping[str, Callable[[], Sequence[int]]],
    rounds: int,
    seconds: float,
    milliseconds_away: float,
) -> Table:
    """Warmed up by one short round of each.

    servers            {"worker": its pids, now, …}: whose CPU is told besides
    milliseconds_away  how far Postgres is, each way
    """
    cells = [
        Cell(STOCK, lambda: stock_cell(stock, servers, seconds)),
        Cell(FARM, lambda: farm_cell(driver, servers, seconds)),
        *(_otherwise(name, _asking(driver, name), servers, seconds) for name in OTHERWISE),
    ]
    stock_cell(stock, servers, 0.5)
    for asking in (driver, *(_asking(driver, name) for name in OTHERWISE)):
        farm_cell(asking, servers, 0.5)
    rows = alternate(cells, rounds)
    away = f" Postgres is {milliseconds_away:g} ms away, each way." if milliseconds_away else ""
    notes = [
        f"Chain of {NODES} no-op nodes.{away} Stock: 2 processes of 4 threads, PostgresSaver, durability sync.",
        f"Farm: 2 worker processes of 8 threads, {IN_FLIGHT} runs in flight, every node leased, fenced and committed.",
        "CPU in ms a node, by kind of process; the starting of runs is not in it.",
    ]
    return Table("1 Node throughput", rows, ratios_of(milliseconds_away), notes)


def ratios_of(milliseconds_away: float) -> list[Ratio]:
    """Redis is held to the same farm without it, at the same number of workers."""
    of_stock = "of stock's at least 0.5, with run-ahead 1.0"
    of_farm = "of the farm's own, a Celery task a node, at least 1.0 with Redis, 1.5 with Redis and run-ahead"
    if milliseconds_away:
        of_stock, of_farm = "", "of the farm's own, a Celery task a node, at least 3 with Redis"
    return [Ratio("nodes/s", STOCK, of_stock), Ratio("nodes/s", FARM, of_farm)]


def _asking(driver: Driver, name: str) -> Driver:
    return driver.asking(OTHERWISE[name], durability="async" if name == ASYNC else "sync")


def _otherwise(name: str, driver: Driver, servers: Mapping[str, Callable[[], Sequence[int]]], seconds: float) -> Cell:
    return Cell(name, lambda: farm_cell(driver, servers, seconds))


def stock_cell(stock: StockProcesses, servers: Mapping[str, Callable[[], Sequence[int]]], seconds: float) -> Figures:
    pids = servers["postgres"]
    before, began = cpu.milliseconds(pids()), epoch_seconds()
    answers = stock.run_for("chain10", seconds)
    ends = [ended for answer in answers for ended, _ in answer.runs]
    nodes = len(ends) * NODES
    used = {"python": sum(answer.cpu_ms for answer in answers), "postgres": cpu.milliseconds(pids()) - before}
    return {"nodes/s": nodes / (max(ends) - began), **{f"{name} CPU": value / nodes for name, value in used.items()}}


def farm_cell(driver: Driver, servers: Mapping[str, Callable[[], Sequence[int]]], seconds: float) -> Figures:
    before = {name: cpu.milliseconds(pids()) for name, pids in servers.items()}
    began = epoch_seconds()
    runs = driver.keep_running("chain10", in_flight=IN_FLIGHT, seconds=seconds)
    used = {name: cpu.milliseconds(pids()) - before[name] for name, pids in servers.items()}
    spans = [span for spans in driver.watcher.spans(runs).values() for span in spans]
    if len(spans) != len(runs) * NODES:
        raise RuntimeError(f"{len(runs)} runs have {len(spans)} node executions that are done, not {len(runs) * NODES}")
    # Within the window alone: while the last runs drain, the workers are no longer full.
    inside = sum(span.finished <= began + seconds for span in spans)
    cost = {f"{'python' if name == 'worker' else name} CPU": value / len(spans) for name, value in used.items()}
    return {"nodes/s": inside / seconds, **cost}
