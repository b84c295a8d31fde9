"""The numbers of one chaos run, as Markdown: what was done, how long it took to recover, what was broken."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.chaos.faults import Fired
from tests.chaos.invariants import Broken, Counts
from tests.chaos.load import Book
from tests.chaos.recovery import Bar, Recovery

#: What is told of a fault that has no bar, since it hits nobody's work.
NEXT_COMMIT: Final = "the next commit"


def render(
    *,
    title: Sequence[str],
    fired: Sequence[Fired],
    recovered: Sequence[Recovery],
    slack: float,
    counts: Counts,
    book: Book,
    fenced: int,
    restarts: int,
    ended: Sequence[tuple[str, int]],
    skipped: Sequence[str],
    broken: Sequence[Broken],
    known: Sequence[str],
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
            f" tried again by a message {counts.tried_later}, holders lost {counts.losses}, commits fenced out {fenced}"
        ),
        f"- runs whose beginnings were counted {counts.runs - counts.uncounted}; of the others claims may be forgotten",
        (
            f"- streams {counts.streams}, events {counts.events}, joined again {book.rejoins},"
            f" with gaps while their server was disturbed {counts.gaps_by_faults}"
        ),
        f"- processes started again {restarts}; requests asked again: {retries}",
        f"- ended by themselves, not by a fault: {', '.join(f'{name} with {code}' for name, code in ended) or 'none'}",
        "",
        "## Recovery",
        "",
        f"Seconds. The bars, in a storm and where nothing else happens, are {slack:g} times those of idle cores.",
        "",
        "| what | faults | p50 | p99 | max | storm | alone |",
        "|---|---|---|---|---|---|---|",
        *_by_bar(recovered, slack),
        "",
        "## Faults",
        "",
        "| at | fault | what it did | back | recovered |",
        "|---|---|---|---|---|",
    ]
    for one in fired:
        did = one.evidence or f"NOT FIRED: {one.failure.strip().splitlines()[-1] if one.failure else 'no time'}"
        at, _, what = str(one.planned).strip().partition("s  ")
        took = ", ".join(_took(recovery) for recovery in recovered if recovery.fired is one)
        lines.append(f"| {at}s | {what} | {did} | {_seconds(one.back_seconds)} | {took} |")
    lines += [f"| | {name} | skipped | | |" for name in skipped]
    lines += ["", "## Broken promises", ""]
    lines += [f"- {one}" for one in broken] or ["None."]
    if broken:
        lines += ["", f"Logs: {logs}", *known]
    return "\n".join([*lines, ""])


def _by_bar(recovered: Sequence[Recovery], slack: float) -> Iterator[str]:
    found: dict[tuple[str, Bar | None], list[Recovery]] = defaultdict(list)
    for one in recovered:
        found[one.fired.planned.kind, one.bar].append(one)
    for (kind, bar), ones in sorted(found.items(), key=lambda item: item[0][0]):
        known = sorted(one.seconds for one in ones if one.seconds is not None)
        at = [
            f"{known[min(len(known) - 1, len(known) * share // 100)]:.2f}" if known else "" for share in (50, 99, 100)
        ]
        bars = f"{bar.storm * slack:g} | {bar.alone * slack:g}" if bar else " | "
        what = bar.what if bar else NEXT_COMMIT
        yield f"| {kind}: {what} | {len(known)} of {len(ones)} | {' | '.join(at)} | {bars} |"


def _took(one: Recovery) -> str:
    if not one.came:
        return "NEVER"
    return f"{one.seconds:.2f} s" if one.seconds is not None else "nothing to wait for"


def _seconds(seconds: float | None) -> str:
    return f"{seconds:.2f} s" if seconds is not None else ""
