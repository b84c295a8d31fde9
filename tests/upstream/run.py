"""Run LangGraph's own tests over our parts: the gate of every upgrade.

The sdist of exactly the locked release is downloaded once, its tests are copied out of it (nothing of it is committed),
and run by pytest with plugin.py. A test that fails is run by stock LangGraph too, and then once more by the engine,
alone: what stock passes and the engine does not, twice, fails the gate, unless known_differences.txt names it with a
reason.

The tests of langgraph-checkpoint-postgres run as well, over our saver and our store in place of its own
(over_postgres.py).

Each mode of the engine takes about a minute and a half on two cores, the others seconds.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from over_postgres import OVER_POSTGRES, run_over_postgres
from pytests import Report, known_differences, run_pytest
from sdists import Sdist

LANGGRAPH = Sdist("langgraph")

MODES = {
    "ordinary": "values cross between two messages as bytes, live objects as they are; subgraphs by messages, too",
    "strict": "nothing but bytes crosses, and subgraphs run inside of their parent's node: as the server has it",
    "retry": "as ordinary; a RetryPolicy means a new message instead of a worker that sleeps",
    "force": "as ordinary; runs without a checkpointer get one, with our serializer",
}
ALL_MODES = {**MODES, **{name: chosen.what for name, chosen in OVER_POSTGRES.items()}}
DEFAULT = ["ordinary", "strict", *OVER_POSTGRES]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    stock = {"stock": Report(), "stock-force": Report()}
    differs = False
    for mode in options.modes:
        if mode in OVER_POSTGRES:
            differs |= run_over_postgres(mode, workers=options.workers)
        else:
            differs |= run_mode(mode, options, stock)
    return 1 if differs else 0


def run_mode(mode: str, options: argparse.Namespace, stocks: dict[str, Report]) -> bool:
    """Whether the engine differs from stock in this mode. Says what it found.

    stocks  what stock has been asked so far, by its own mode; grows
    """
    release = options.release or LANGGRAPH.locked_release()
    suite = LANGGRAPH.fetch(release)
    beside = [str(LANGGRAPH.install_beside(release))] if options.release else []
    run_engine = partial(_run_engine, suite, beside)
    base = "stock-force" if mode == "force" else "stock"
    stock = stocks[base]
    first = run_engine(mode, options.tests, workers=options.workers)
    if not first.did["segment_node"]:
        raise SystemExit(f"upstream {mode}: the engine executed no node at all, so nothing was tested.")
    known = known_differences(mode)
    failed = [test for test in first.failed if not known.get(test)]
    if unasked := [test for test in failed if test not in stock.outcomes]:
        stock.outcomes |= run_engine(base, unasked, workers=0).outcomes
    fails_in_stock = [test for test in failed if stock.outcomes.get(test) != "passed"]
    only_here = sorted(set(failed) - set(fails_in_stock))
    differing = run_engine(mode, only_here, workers=0).failed if only_here else []
    for test in differing:
        print(f"DIFFERS  {test}\n         {first.errors.get(test, '')[:300]}")
    for test in sorted(set(only_here) - set(differing)):
        print(f"failed once, passed alone: {test}")
    for test in sorted(t for t in known if first.outcomes.get(t) == "passed"):
        print(f"no difference any more, take it out of known_differences.txt: {test}")
    counts = Counter(first.outcomes.values())
    print(
        f"upstream langgraph {release}, {mode}: {counts['passed']} passed, {counts['skipped']} skipped, "
        f"{len(fails_in_stock)} fail in stock as well, {len(set(first.failed) & set(known))} known differences, "
        f"{len(differing)} differ; {first.did['segment_node']} node executions in {first.did['run']} runs"
    )
    return bool(differing)


def _run_engine(suite: Path, first: Sequence[str], mode: str, tests: Iterable[str], *, workers: int) -> Report:
    no_servers = {"NO_DOCKER": "true"}  # the tests that need them are skipped
    return run_pytest(suite, mode, tests, plugin="plugin", workers=workers, environment=no_servers, first=first)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    modes = "\n".join(f"  {name:<10}{what}" for name, what in ALL_MODES.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"modes:\n{modes}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", type=_modes, default=DEFAULT, help=f"comma-separated; default: {','.join(DEFAULT)}")
    parser.add_argument("--release", help="another langgraph than the locked one, with its own tests; installed aside")
    parser.add_argument("--workers", type=int, default=2, help="pytest processes; default: 2")
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or test ids of langgraph's; default: all")
    return parser.parse_args(arguments)


def _modes(text: str) -> list[str]:
    modes = text.split(",")
    if unknown := [mode for mode in modes if mode not in ALL_MODES]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(ALL_MODES)}")
    return modes


if __name__ == "__main__":
    sys.exit(main())
