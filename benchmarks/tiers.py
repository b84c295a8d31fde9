"""12: what a node's store costs it on either tier: claim, load and commit, and what Postgres does for it."""

from collections.abc import Mapping

from agentfarm.run_options import RunChoices
from benchmarks.driver import Driver
from benchmarks.rounds import Cell, Figures, Ratio, Table, alternate
from benchmarks.station import Station, Stopwatch, timed

POSTGRES = "Postgres"
REDIS = "Redis"

TIERS: Mapping[str, RunChoices] = {POSTGRES: RunChoices(), REDIS: RunChoices(persistence="redis")}

#: Parts of a message that are the store's: a claim brings the state along.
OF_THE_STORE = ("claim", "commit")


def measure_tiers(driver: Driver, *, rounds: int, runs: int, milliseconds_away: float) -> Table:
    """milliseconds_away: how far Postgres is, each way."""
    stations = {name: Station(driver.asking(choices)) for name, choices in TIERS.items()}
    cells = [_cell(name, station, runs) for name, station in stations.items()]
    for cell in cells:
        cell.measure()
    away = f" Postgres is {milliseconds_away:g} ms away, each way." if milliseconds_away else ""
    notes = [
        f"{runs} runs of the chain a round, one at a time, in one process; wall time of each message.{away}",
        "The end of a run is in it: on the Redis tier it hands in what Postgres lacks. CPU is Python's alone.",
        "Commits are the transactions of Postgres that wrote something, a run: admission and beats are among them.",
    ]
    limit = f"at most {0.25 if milliseconds_away else 0.75}"
    return Table("12 Tiers", alternate(cells, rounds), [Ratio("claim + commit ms", POSTGRES, limit)], notes)


def _cell(name: str, station: Station, runs: int) -> Cell:
    def measure() -> Figures:
        watch = Stopwatch()
        before = station.driver.watcher.transactions()
        with timed(watch):
            messages = station.execute("chain10", runs, watch)
        commits = station.driver.watcher.transactions() - before
        spent = [watch.spent[part] for part in OF_THE_STORE]
        figures = {f"{part} ms": watch.spent[part].wall / messages * 1e3 for part in OF_THE_STORE}
        return {
            "claim + commit ms": sum(one.wall for one in spent) / messages * 1e3,
            **figures,
            "CPU ms": sum(one.cpu for one in spent) / messages * 1e3,
            "commits a run": commits / runs,
        }

    return Cell(name, measure)
