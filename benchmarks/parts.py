"""6: where the time of one message goes, part by part (station.py)."""

from benchmarks.driver import Driver
from benchmarks.rounds import Figures, Ratio, Table
from benchmarks.station import PARTS, REST, Spent, Station, Stopwatch, timed


def measure_parts(driver: Driver, *, rounds: int, runs: int) -> Table:
    station = Station(driver)
    station.execute("chain10", 2, Stopwatch())
    rows: dict[str, list[Figures]] = {
        name: [] for name in dict.fromkeys([*(part for part, _, _ in PARTS), REST, "sum"])
    }
    for number in range(rounds):
        print(f"  round {number + 1} of {rounds}")
        watch = Stopwatch()
        with timed(watch):
            messages = station.execute("chain10", runs, watch)
        spent = watch.spent.values()
        watch.spent["sum"] = Spent(sum(each.wall for each in spent), sum(each.cpu for each in spent))
        for name, figures in rows.items():
            one = watch.spent[name]
            figures.append({"ms a message": one.wall / messages * 1e3, "CPU ms": one.cpu / messages * 1e3})
    notes = [
        f"{runs} runs of the chain a round, one at a time, in one process; exclusive times; CPU of Python alone.",
        "A worker adds Celery's own part of a hop: receive, decode, schedule, acknowledge (table 2).",
    ]
    return Table("6 Parts of a message", rows, [Ratio("ms a message", "sum")], notes)
