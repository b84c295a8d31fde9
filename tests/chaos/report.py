"""The numbers of one chaos run, as Markdown: what was done, how long it took to recover, what was broken."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from tests.chaos.faults import Fired
from tests.chaos.invariants import Broken, Counts, Facts
from tests.chaos.load import Book


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from a fault to commits after it; None where there was none.

    any_commit  of any run that was under way
    own         of the last node that the victim held
    """

    any_commit: float | None
    own: float | None


def recoveries(facts: Facts, fired: Sequence[Fired]) -> list[Recovery]:
    rows = facts.rows(
        "SELECT e.run_id, e.checkpoint_id, e.execution_id, e.finished_at, r.created_at AS began, r.finished_at AS ended"
        " FROM farm.node_execution e JOIN farm.run r USING (tenant_id, run_id) WHERE e.finished_at IS NOT NULL"
    )
    by_key: dict[tuple[UUID, UUID, UUID], datetime] = {
        (row["run_id"], row["checkpoint_id"], row["execution_id"]): row["finished_at"] for row in rows
    }
    found = []
    for one in fired:
        if one.at is None:
            found.append(Recovery(None, None))
            continue
        at = one.at
        later = [
            row["finished_at"] for row in rows if row["finished_at"] > at and row["began"] < at < (row["ended"] or at)
        ]
        own = [by_key[key] for key in one.held if key in by_key and by_key[key] > at]
        found.append(Recovery(_seconds(at, min(later, default=None)), _seconds(at, max(own, default=None))))
    return found


def render(
    *,
    title: Sequence[str],
    fired: Sequence[Fired],
    recovered: Sequence[Recovery],
    counts: Counts,
    book: Book,
    fenced: int,
    restarts: int,
    skipped: Sequence[str],
    broken: Sequence[Broken],
    logs: Path,
) -> str:
    lines = [*title, "", "## Numbers", ""]
    retries = ", ".join(f"{name} {count}" for name, count in book.retries.most_common()) or "none"
    lines += [
        (
            f"- runs {counts.runs}, acknowledged {len(book.acknowledged)},"
            f" made by a request that got no answer {counts.unacknowledged}"
        ),
        (
            f"- node executions {counts.executions}, begun more than once {counts.begun_again},"
            f" holders lost {counts.losses}, commits fenced out {fenced}"
        ),
        (
            f"- streams {counts.streams}, events {counts.events}, joined again {book.rejoins},"
            f" with gaps while their server was disturbed {counts.gaps_by_faults}"
        ),
        f"- processes started again {restarts}; requests asked again: {retries}",
        f"- commits after a fault, seconds: {_spread([one.any_commit for one in recovered])}",
        f"- the victim's own nodes committed, seconds: {_spread([one.own for one in recovered])}",
        "",
        "## Faults",
        "",
        "| at | fault | what it did | back | next commit | victim's own |",
        "|---|---|---|---|---|---|",
    ]
    for one, recovery in zip(fired, recovered, strict=True):
        did = one.evidence or f"NOT FIRED: {one.failure.strip().splitlines()[-1] if one.failure else 'no time'}"
        cells = (one.planned, did, one.back_seconds, recovery.any_commit, recovery.own)
        at, _, what = str(cells[0]).strip().partition("s  ")
        told = (f"{at}s", what, did, *(_cell(seconds) for seconds in cells[2:]))
        lines.append(f"| {' | '.join(told)} |")
    lines += [f"| | {name} | skipped | | | |" for name in skipped]
    lines += ["", "## Broken promises", ""]
    lines += [f"- {one}" for one in broken] or ["None."]
    if broken:
        lines += ["", f"Logs: {logs}"]
    return "\n".join([*lines, ""])


def _cell(seconds: object) -> str:
    return f"{seconds:.2f} s" if isinstance(seconds, float) else ""


def _spread(seconds: Sequence[float | None]) -> str:
    known = sorted(one for one in seconds if one is not None)
    if not known:
        return "none"
    at = {f"p{share}": known[min(len(known) - 1, len(known) * share // 100)] for share in (50, 99)}
    return (
        ", ".join(f"{name} {value:.2f}" for name, value in at.items()) + f", max {known[-1]:.2f} ({len(known)} faults)"
    )


def _seconds(since: datetime, until: datetime | None) -> float | None:
    return None if until is None else (until - since).total_seconds()
