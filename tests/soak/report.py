"""Samples as CSV, and as a Markdown page with a verdict and a small drawing for each series."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.soak.samples import KINDS, Kind, Sample
from tests.soak.verdict import Point, Tolerance, Verdict, judge

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 32

#: What the farm is given to get used to its load (threads' time to live, first vacuums): a share of the soak, and at
#: least so long.
WARM_UP_SHARE = 0.2
WARM_UP_SECONDS = 400.0

#: … and a process of its own life, from its first sample.
PROCESS_WARM_UP_SHARE = 0.12
PROCESS_WARM_UP_SECONDS = 240.0

#: A load that grew by more than this share cannot tell growth from its own.
STEADY = 0.25

#: Of a kind that is shown and not judged.
_ANY = Tolerance(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Judged:
    kind: Kind
    name: str
    points: Sequence[Point]
    verdict: Verdict

    @property
    def grows(self) -> bool:
        return self.kind.tolerance is not None and self.verdict.answer == "growing"


def judge_all(samples: Sequence[tuple[float, Sample]], seconds: float) -> list[Judged]:
    """samples  (seconds since the load began, what was read then)"""
    series: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for at, sample in samples:
        for key, value in sample.items():
            series[key].append((at, value))
    judged = []
    more = load_growth(series.get(("turns", "all"), []), seconds)
    for kind in KINDS.values():
        for (kind_name, name), points in sorted(series.items()):
            if kind_name != kind.name:
                continue
            if kind.is_process:
                warm_up = max(PROCESS_WARM_UP_SECONDS, seconds * PROCESS_WARM_UP_SHARE)
            else:  # a server's key or table that came late is as old as the load all the same
                warm_up = max(0.0, WARM_UP_SECONDS - points[0][0], seconds * WARM_UP_SHARE - points[0][0])
            # One that is not judged is measured like the others.
            verdict = judge(points, kind.tolerance or _ANY, warm_up_seconds=warm_up)
            if kind.follows_load and more > STEADY and verdict.answer == "growing":
                verdict = replace(verdict, answer="unsteady")
            judged.append(Judged(kind, name, points, verdict))
    return judged


def load_growth(turns: Sequence[Point], seconds: float) -> float:
    """By which share there were more turns a minute at the end than after the warm-up; 0 for fewer. A machine that has
    much else to do does not hold the pace of the users, and then does again."""
    warm = [point for point in turns if point[0] >= max(WARM_UP_SECONDS, seconds * WARM_UP_SHARE)]
    quarter = len(warm) // 4
    if quarter < 2:
        return 0.0
    first, last = (_rate(part) for part in (warm[:quarter], warm[-quarter:]))
    return max(0.0, last / first - 1.0) if first else 0.0


def _rate(turns: Sequence[Point]) -> float:
    return (turns[-1][1] - turns[0][1]) / (turns[-1][0] - turns[0][0])


def unjudged(judged: Sequence[Judged]) -> list[str]:
    """Processes and servers of which no life was long enough to be judged: what a soak cannot acquit."""
    long_enough: dict[str, bool] = defaultdict(bool)
    for one in judged:
        if one.kind.is_process:
            name = one.name.rpartition(" ")[0]
            long_enough[name] |= one.verdict.answer != "short"
    return sorted(name for name, is_long in long_enough.items() if not is_long)


def write_csv(path: Path, samples: Sequence[tuple[float, Sample]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["seconds", "kind", "series", "value"])
        for at, sample in samples:
            rows.writerows([f"{at:.1f}", kind, name, f"{value:.3f}"] for (kind, name), value in sample.items())


def render(
    title: Sequence[str], judged: Sequence[Judged], facts: Mapping[str, str], wrong: Sequence[str], seconds: float
) -> str:
    grow = [one for one in judged if one.grows]
    lines = [*title, "", "## Verdict", ""]
    lines += [f"- **grows**: {one.kind.name} of {one.name}: {_told(one)}" for one in grow]
    lines += [f"- **wrong**: {what}" for what in wrong]
    lines += [
        f"- not judged, since the load grew: {one.kind.name} of {one.name}: {_told(one)}"
        for one in judged
        if one.verdict.answer == "unsteady"
    ]
    lines += [] if grow or wrong else ["Nothing grows, and every answer was right."]
    if short := unjudged(judged):
        lines += [f"- no life was long enough to judge: {', '.join(short)}"]
    lines += ["", "## Numbers", "", *(f"- {name}: {value}" for name, value in facts.items())]
    for kind in KINDS.values():
        mine = [one for one in judged if one.kind is kind]
        lines += _table(kind, mine, seconds) if mine else []
    return "\n".join([*lines, ""])


def spark(points: Sequence[Point], seconds: float, *, low: float, high: float) -> str:
    """One letter a slot of time, over the whole soak; a space where there was no sample."""
    slots: list[list[float]] = [[] for _ in range(WIDTH)]
    for at, value in points:
        slots[min(WIDTH - 1, int(at / seconds * WIDTH))].append(value)
    span = (high - low) or 1.0
    letters = [BLOCKS[int((sum(slot) / len(slot) - low) / span * (len(BLOCKS) - 1))] if slot else " " for slot in slots]
    return "".join(letters)


def _table(kind: Kind, judged: Sequence[Judged], seconds: float) -> list[str]:
    about = [kind.unit, kind.note, "" if kind.tolerance else "shown, not judged"]
    told = [one for one in judged if one.verdict.answer != "short"]
    lines = ["", f"## {kind.name} ({'; '.join(filter(None, about))})", ""]
    if told:
        lines += [
            "| series | first quarter | last quarter | least | most | an hour | verdict | from 0 to its most |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for one in told:
        values = [value for _, value in one.points]
        cells = (
            one.name,
            *map(_number, (one.verdict.first, one.verdict.last, min(values), max(values))),
            f"{one.verdict.an_hour:+.3g}",
            (f"**{one.verdict.answer}**" if one.grows else one.verdict.answer) if kind.tolerance else "",
            f"`{spark(one.points, seconds, low=0.0, high=max(values))}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    if short := len(judged) - len(told):
        lines += ["", f"{short} more lived too short to be judged."]
    return lines


def _told(one: Judged) -> str:
    verdict = one.verdict
    return (
        f"{_number(verdict.first)} → {_number(verdict.last)} {one.kind.unit} in {verdict.hours * 60:.0f} minutes,"
        f" {verdict.an_hour:+.3g} an hour"
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"
