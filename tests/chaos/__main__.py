"""`make chaos`, or `python -m tests.chaos --seconds 90 --broker redis --seed 7`. 0 when no promise was broken."""

import argparse
import os
import random
import shutil
import signal
import sys
from datetime import UTC, datetime

os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")  # before langgraph is imported

from tests.chaos.mutants import MUTANTS
from tests.chaos.run import Orders, run
from tests.farm import ROOT

FOLDER = ROOT / ".farm" / "chaos"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of plan, users and pauses; random if not given")
    parser.add_argument("--seconds", type=float, default=90.0, help="of load and faults; set-up and end come on top")
    parser.add_argument("--broker", choices=["redis", "rabbitmq"], default="redis")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two faults, on average")
    parser.add_argument("--only", action="append", default=[], help="a kind of fault; may be repeated")
    parser.add_argument("--mutant", choices=list(MUTANTS), help="a farm broken on purpose (tests/chaos/mutants.py)")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    mutant = MUTANTS.get(given.mutant)
    only = tuple(given.only) or tuple(mutant.only if mutant else ())
    orders = Orders(seed, given.seconds, given.broker, FOLDER / name, given.users, given.every, only, mutant)
    print(f"seed {seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # by way of every `finally`: nothing is left running
    try:
        verdict = run(orders)
        report = FOLDER / f"{name}.md"
        report.write_text(verdict.text, encoding="utf-8")
        print(verdict.text)
        print(f"report: {report}")
    finally:
        shutil.rmtree(orders.folder / "servers", ignore_errors=True)
        print(f"seed {seed}", flush=True)
    if verdict.broken:
        print(f"{len(verdict.broken)} promises broken; logs and rows: {orders.folder}", file=sys.stderr)
        return 1
    shutil.rmtree(orders.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
