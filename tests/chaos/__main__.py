"""`make chaos`, or `python -m tests.chaos --seconds 90 --broker redis --seed 7`. 0 when no promise was broken."""

import argparse
import os
import random
import shutil
import signal
import sys
from datetime import UTC, datetime

os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")  # before langgraph is imported

from typing import get_args

from agentfarm.conf import Settings
from tests.chaos.plan import EVERY_SECONDS, LEASE_SECONDS
from tests.chaos.run import LEAST_RUNS, QUIESCE_SECONDS, Orders, run
from tests.chaos.servers import Broker
from tests.farm import ROOT

DEFAULT_LEASE_SECONDS = float(Settings.model_fields["lease_seconds"].default)

FOLDER = ROOT / ".farm" / "chaos"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of plan, users and pauses; random if not given")
    parser.add_argument("--seconds", type=float, default=90.0, help="of load and faults; set-up and end come on top")
    parser.add_argument("--broker", choices=get_args(Broker), default="redis")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument(
        "--every", type=float, default=EVERY_SECONDS, help="seconds between two faults, on average, times slack"
    )
    parser.add_argument("--only", action="append", default=[], help="a kind of fault; may be repeated")
    parser.add_argument("--slack", type=float, default=1.0, help="times slower than two idle cores")
    parser.add_argument("--alone", action="store_true", help="default settings, and the bars of one fault at a time")
    parser.add_argument("--least-runs", type=float, default=LEAST_RUNS, help="a second of storm; fewer fail")
    parser.add_argument("--patience", type=float, default=QUIESCE_SECONDS, help="seconds for the last runs to end")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    orders = Orders(
        seed=seed,
        seconds=given.seconds,
        broker=given.broker,
        folder=FOLDER / name,
        users=given.users,
        every_seconds=given.every * given.slack,
        only=tuple(given.only),
        lease_seconds=DEFAULT_LEASE_SECONDS if given.alone else LEASE_SECONDS,
        slack=given.slack,
        alone=given.alone,
        least_runs=given.least_runs,
        patience_seconds=given.patience,
    )
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
