"""A table of benchmarks/growth.py as a picture. The one module that knows matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from benchmarks.growth import FARM, STOCK, Axis
from benchmarks.rounds import Figures, Table

INCHES = (7.0, 4.2)


def draw(axis: Axis, table: Table, path: Path) -> None:
    """Milliseconds a node of both sides: median of the rounds, and a band from the least to the most."""
    values = [int(name.split(" ", 1)[0].replace(",", "")) for name in table.rows]
    figure = Figure(figsize=INCHES, layout="constrained")
    plot = figure.subplots()
    for column, colour, marker in ((STOCK, "tab:gray", "s"), (FARM, "tab:blue", "o")):
        told = [_values(rows, column) for rows in table.rows.values()]
        plot.fill_between(values, [min(each) for each in told], [max(each) for each in told], color=colour, alpha=0.2)
        plot.plot(values, [median(each) for each in told], color=colour, marker=marker, label=column)
    plot.set(xlabel=axis.unit, ylabel="ms a node", title=axis.title, ylim=(0, None))
    if not axis.is_even:
        plot.set_xscale("log")
    plot.set_xticks(values, labels=[f"{value:,}" for value in values])
    plot.minorticks_off()
    plot.grid(visible=True, alpha=0.3)
    plot.legend()
    figure.savefig(path, dpi=120)


def _values(rows: Sequence[Figures], column: str) -> list[float]:
    return [row[column] for row in rows]
