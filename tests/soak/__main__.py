"""`make soak SECONDS=3600 BROKER=redis SEED=7`: a farm under steady load, with faults, for hours. Does anything grow?

0: nothing grows and every answer was right. 1: the report names what grows or was wrong. It ends by itself.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")  # before langgraph is imported

from tests.chaos import graphs
from tests.chaos.faults import Faults
from tests.chaos.fleet import Fleet
from tests.chaos.plan import LEASE_SECONDS
from tests.chaos.proxy import Network
from tests.chaos.run import SECRETS
from tests.chaos.servers import NAMES, Broker, Servers
from tests.farm import ROOT, FarmProcesses, manage
from tests.soak import report
from tests.soak.load import Told, talk
from tests.soak.plan import kinds, plan_soak
from tests.soak.samples import Sample, Sampler

FOLDER = ROOT / ".farm" / "soak"

#: How long the last conversations may take once nothing is broken any more.
QUIESCE_SECONDS = 90.0

#: The share of faults that may find nothing to happen to: a worker that another fault has killed has no way to be cut.
MOST_IDLE = 0.1

#: Streams are kept for two minutes, threads for three (langgraph.json): well within the warm-up of an hour.
RETENTION = {"RESUMABLE_STREAM_TTL_SECONDS": "120"}


@dataclass(frozen=True)
class Orders:
    """What was asked for on the command line."""

    seed: int
    seconds: float
    broker: Broker
    folder: Path
    users: int
    pace_seconds: float
    faults_every_seconds: float
    sample_seconds: float


@dataclass
class Watch:
    """Samples, from a thread of its own: the load must not wait for them."""

    sampler: Sampler
    told: Told
    every_seconds: float
    samples: list[tuple[float, Sample]] = field(default_factory=list)
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="samples", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Raises what ended the watch before its time."""
        self._over.set()
        self._thread.join(60)
        if self.failure:
            raise self.failure

    def _watch(self) -> None:
        began = time.monotonic()
        try:
            while not self._over.wait(self.every_seconds):
                sample = self.sampler.take()
                sample["turns", "all"] = self.told.turns
                if self.told.seconds:
                    sample["turn", "all"] = statistics.median(self.told.seconds)
                    self.told.seconds.clear()
                self.samples.append((time.monotonic() - began, sample))
        except Exception as error:  # raised again by stop()
            self.failure = error


def main() -> int:
    orders = parse()
    print(f"seed {orders.seed}, folder {orders.folder}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # by way of every `finally`: nothing is left running
    servers = Servers(orders.folder / "servers", orders.broker)
    try:
        for name in NAMES:
            servers.start(name)
        with Network() as network:
            code = soak(orders, servers, network)
    finally:
        servers.stop()
        shutil.rmtree(orders.folder / "servers", ignore_errors=True)
    return code


def parse() -> Orders:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, help="of users, faults and pauses; random if not given")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of load; set-up and end come on top")
    parser.add_argument("--broker", choices=["redis", "rabbitmq"], default="redis")
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--pace", type=float, default=2.0, help="seconds from one turn of a user to the next")
    parser.add_argument("--every", type=float, default=40.0, help="seconds between two faults, on average")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    sample_seconds = max(1.0, min(10.0, given.seconds / 120))
    return Orders(
        seed, given.seconds, given.broker, FOLDER / name, given.users, given.pace, given.every, sample_seconds
    )


def soak(orders: Orders, servers: Servers, network: Network) -> int:
    ledger, logs = orders.folder / "ledger", orders.folder / "logs"
    ledger.mkdir()
    logs.mkdir()
    environment = {
        **SECRETS,
        **RETENTION,
        "AGENTFARM_CONFIG": str(ROOT / "tests/soak/langgraph.json"),
        "AGENTFARM_LEASE_SECONDS": str(LEASE_SECONDS),
        "AGENTFARM_RETRY_MESSAGE_SECONDS": "0.5",
        graphs.LEDGER: str(ledger),
    }
    keys = set_up({**environment, **servers.direct_urls}, servers.root_url, orders.folder)
    plan = plan_soak(orders.seed, orders.seconds, every_seconds=orders.faults_every_seconds)
    fleet = Fleet(servers, network, environment, logs, random.Random(f"fleet {orders.seed}"))
    faults, told = Faults(fleet, servers, plan), Told()
    watch = Watch(Sampler(fleet, servers), told, orders.sample_seconds)
    try:
        fleet.start()
        print(f"the farm runs; {orders.users} users, {len(plan)} faults: {kinds(plan)}", flush=True)
        watch.start()
        faults.start()
        load = talk(
            fleet.urls, keys, told, ledger,
            seed=orders.seed, users=orders.users, pace_seconds=orders.pace_seconds,
            seconds=orders.seconds, patience_seconds=QUIESCE_SECONDS + orders.faults_every_seconds,
        )  # fmt: skip
        asyncio.run(load)
        watch.stop()
        faults.finish(seconds=90.0)
        codes = fleet.stop()
    finally:
        fleet.kill_all()
        report.write_csv(orders.folder / "samples.csv", watch.samples)
    told.wrong += [f"{name} ended with {code} on SIGTERM" for name, code in codes.items() if code]
    idle = [f"{one.planned}: {one.failure}" for one in faults.fired if not one.evidence]
    if len(idle) > len(plan) * MOST_IDLE:
        told.wrong.append(f"{len(idle)} of {len(plan)} faults found nothing to happen to: {'; '.join(idle)}")
    return tell(orders, watch, told, faults, fleet)


def set_up(environment: Mapping[str, str], admin_url: str, folder: Path) -> dict[str, str]:
    """Schema, two tenants: their keys. Redis moves the runs of the second."""
    farm = FarmProcesses(environment, folder, admin_url)
    manage(farm, "migrate", "--verbosity", "0")
    made = json.loads(manage(farm, "farm_setup", "--json", "--secrets", str(folder / "secrets.json")))
    moved = f"Tenant.objects.filter(slug={made['tenants'][1]['slug']!r}).update(persistence='redis')"
    manage(farm, "shell", "--no-imports", "-c", f"from tenants.models import Tenant; {moved}")
    return {tenant["slug"]: tenant["key"] for tenant in made["tenants"]}


def tell(orders: Orders, watch: Watch, told: Told, faults: Faults, fleet: Fleet) -> int:
    judged = report.judge_all(watch.samples, orders.seconds)
    wrong = list(told.wrong)
    if not any(one.verdict.answer != "short" for one in judged):
        wrong.append("nothing lived long enough to be judged: soak for longer")
    again = f"make soak SEED={orders.seed} SECONDS={orders.seconds:.0f} BROKER={orders.broker}"
    title = [f"# Soak: seed {orders.seed}, {orders.seconds:.0f} s, broker {orders.broker}", "", f"Again: `{again}`"]
    facts = {
        "turns": f"{told.turns} of {orders.users} users, {told.turns / orders.seconds:.2f} a second",
        "conversations compared with stock LangGraph": f"{told.threads}, {told.deleted} of them deleted by their user",
        "requests asked again": str(told.asked_again),
        "faults": kinds([one.planned for one in faults.fired if one.evidence]),
        "processes started again": str(fleet.restarts),
        "samples": f"{len(watch.samples)}; left out while a server was away: {dict(watch.sampler.gaps) or 'none'}",
    }
    text = report.render(title, judged, facts, wrong, orders.seconds)
    page = orders.folder / "report.md"
    page.write_text(text, encoding="utf-8")
    print(text.partition("\n## memory")[0])
    print(f"report: {page}")
    return 1 if wrong or any(one.grows for one in judged) else 0


if __name__ == "__main__":
    sys.exit(main())
