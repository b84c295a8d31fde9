"""Measure cells by turns and print them beside each other.

A machine that is shared, or virtual, does the same work 1.0 to 1.6 times as slowly from one minute to the next. So
nothing here is compared with a figure of another day: every table has a named baseline, measured in the same rounds by
turns, and the ratio is the median of the rounds' own ratios.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from agentfarm import clock

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of a table: measure() is called once a round and answers {column: value}."""

    name: str
    measure: Callable[[], Figures]


@dataclass(frozen=True, slots=True)
class Ratio:
    """`column` of each cell ÷ the baseline's. limit: what DESIGN asks of it, in words, for the line below the table."""

    column: str
    baseline: str
    limit: str = ""


@dataclass(slots=True)
class Table:
    """rows: {cell: its figures, round by round}; ratios: a column each"""

    title: str
    rows: dict[str, list[Figures]]
    ratios: Sequence[Ratio] = ()
    notes: list[str] = field(default_factory=list)


def alternate(cells: Sequence[Cell], rounds: int, tell: Callable[[str], None] = print) -> dict[str, list[Figures]]:
    """Every cell once a round; every other round backwards, so that no cell always follows the same one."""
    measured: dict[str, list[Figures]] = {cell.name: [] for cell in cells}
    for number in range(rounds):
        for cell in cells if number % 2 == 0 else reversed(cells):
            tell(f"  round {number + 1} of {rounds}: {cell.name}")
            measured[cell.name].append(cell.measure())
    return measured


def round_ratios(rows: Mapping[str, Sequence[Figures]], ratio: Ratio, name: str) -> list[float]:
    """The cell ÷ the baseline of the same round."""
    pairs = zip(rows[name], rows[ratio.baseline], strict=True)
    return [
        mine[ratio.column] / base[ratio.column] for mine, base in pairs if ratio.column in mine and base[ratio.column]
    ]


def epoch_seconds() -> float:
    """Seconds since 1970: comparable between processes, and with Postgres' clock, on one machine."""
    return clock.now().timestamp()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed. Raises ValueError for no values."""
    if not values:
        raise ValueError("a percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def render(table: Table) -> str:
    """The table as Markdown, which is readable as it is."""
    columns = list(dict.fromkeys(column for rows in table.rows.values() for row in rows for column in row))
    head = ["", *columns, *(f"{ratio.column} ÷ {ratio.baseline}" for ratio in table.ratios)]
    lines = [
        [
            name,
            *(_spread([row[c] for row in rows if c in row]) for c in columns),
            *(_ratio_of(table, ratio, name) for ratio in table.ratios),
        ]
        for name, rows in table.rows.items()
    ]
    widths = [max(len(row[i]) for row in (head, *lines)) for i in range(len(head))]
    rows = [head, ["-" * width for width in widths], *lines]
    text = [f"## {table.title}", ""]
    text += [
        "| " + " | ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    notes = [*table.notes, *(f"Asked for: {ratio.limit}." for ratio in table.ratios if ratio.limit)]
    return "\n".join([*text, "", *(f"* {note}" for note in notes), ""])


def _ratio_of(table: Table, ratio: Ratio, name: str) -> str:
    return "1 (baseline)" if name == ratio.baseline else _spread(round_ratios(table.rows, ratio, name))


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(median(values))} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
