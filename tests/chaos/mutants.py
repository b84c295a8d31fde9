"""Farms that are broken on purpose: `python -m tests.chaos.mutants`, or `make mutants`. The chaos must catch each.

A guard is taken out of the database's functions, or a process is not started. What is not there to be taken out fails:
a mutant that is no mutant proves nothing.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql as statements

from tests.farm import ROOT


@dataclass(frozen=True, slots=True)
class Mutant:
    """breaks  what is wrong with this farm
    swaps    (function of schema farm, text in it, text instead)
    without  processes that are not started
    only     the faults that are to bring it out; chosen to be few, so that the run is short
    """

    breaks: str
    swaps: Sequence[tuple[str, str, str]] = ()
    without: Sequence[str] = ()
    only: Sequence[str] = ()


_FENCE = "AND e.fence = p_fence AND e.worker = p_worker AND e.status = 'leased'"

MUTANTS = {
    "no-fence": Mutant(
        "whoever executed a node may save it, also when another took it over",
        swaps=[("commit", _FENCE, ""), ("settle", _FENCE, "")],
        only=["freeze worker", "black hole postgres"],
    ),
    "no-fence-no-head": Mutant(
        "and the head of a thread is moved from wherever it is",
        swaps=[
            ("commit", _FENCE, ""),
            ("settle", _FENCE, ""),
            ("commit", "AND h.head IS NOT DISTINCT FROM p_from", ""),
        ],
        only=["freeze worker", "black hole postgres"],
    ),
    "no-healer": Mutant(
        "nobody looks for what died or got lost",
        without=["beat"],
        only=["flush broker", "kill worker"],
    ),
    "no-losses": Mutant(
        "a worker that is gone is never taken for lost",
        swaps=[("is_lost", "SELECT p_worker IS NULL OR", "SELECT false AND p_worker IS NULL OR false AND")],
        only=["kill worker", "kill child"],
    ),
}


def apply(mutant: Mutant, dsn: str) -> None:
    """Raises LookupError where there is nothing to take out."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, text, instead in mutant.swaps:
            found = connection.execute(
                "SELECT pg_get_functiondef(p.oid) FROM pg_proc p"
                " WHERE p.pronamespace = 'farm'::regnamespace AND p.proname = %s",
                (name,),
            ).fetchall()
            if len(found) != 1 or text not in found[0][0]:
                raise LookupError(f"farm.{name} does not say {text!r} (any more): mend the mutant")
            connection.execute(statements.SQL(found[0][0].replace(text, instead)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *MUTANTS], help="all, if none is named")
    parser.add_argument("--seconds", type=float, default=35.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    survived = []
    for name in given.names or MUTANTS:
        command = [sys.executable, "-m", "tests.chaos", "--mutant", name, "--seconds", str(given.seconds)]
        done = subprocess.run(
            [*command, "--seed", str(given.seed)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        _, _, broken = done.stdout.partition("## Broken promises\n\n")
        # A fault that did not happen is no catch: the mutant has to break a promise.
        is_caught = done.returncode == 1 and any(
            line.startswith("- ") and not line.startswith("- plan:") for line in broken.splitlines()
        )
        print(f"{name:<18} {'caught' if is_caught else 'SURVIVED'}: {broken.splitlines()[0][:160] if broken else ''}")
        if not is_caught:
            survived.append(name)
            print(done.stderr[-2000:])
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
