"""One chaos run from its seed to its verdict: servers, processes, users, faults, invariants, report.

All of it is below one folder, on loopback, and gone at the end but for logs and report.
"""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import psutil

from tests.chaos import dossier, graphs, recovery, report
from tests.chaos.disk import small_disk
from tests.chaos.faults import Faults, find_faketime
from tests.chaos.fleet import PREFORK, Fleet
from tests.chaos.invariants import Broken, Facts, Span, check_after_the_end, check_answers, check_database
from tests.chaos.load import Book, Load
from tests.chaos.plan import EVERY_SECONDS, LEASE_SECONDS, Planned, every_kind, plan_faults
from tests.chaos.proxy import Network
from tests.chaos.servers import NAMES, Broker, Servers
from tests.farm import ROOT, wait_for

#: How long the last runs may take once nothing is broken any more. The slowest net below them is a message of a dead
#: worker that its broker holds back for half a minute.
QUIESCE_SECONDS = 90.0

#: Runs a second of storm below which it has shown nothing: a quarter of what two cores do.
LEAST_RUNS = 1.0

#: Runs among which a graph that users choose one time in eight is for sure.
MANY_RUNS = 100

TENANTS = ("demo", "other", "third")

SECRETS = {
    "AGENTFARM_SECRET_KEY": "for-tests-only-for-tests-only-for-tests-only",
    "FLOWER_USER": "admin",
    "FLOWER_PASSWORD": "for-tests-only",
    "LANGGRAPH_STRICT_MSGPACK": "true",
}

#: Why a kind of fault that this machine has not what it needs for is left out.
WHY_NOT = {
    "wrong clock": "Debian's package libfaketime is not installed",
    "fill postgres": "a disk of its own needs root, the right to mount one, and 7 GiB of free memory",
}


@dataclass(frozen=True)
class Orders:
    """What was asked for on the command line."""

    seed: int
    seconds: float
    broker: Broker
    folder: Path
    users: int = 8
    every_seconds: float = EVERY_SECONDS
    only: tuple[str, ...] = ()  # kinds of faults; empty: all
    lease_seconds: float = LEASE_SECONDS
    slack: float = 1.0  # how much slower than two idle cores this machine is: bars, patience and the least work
    alone: bool = False  # hold it to the bars of a farm on which nothing else happens
    least_runs: float = LEAST_RUNS  # a second of storm
    patience_seconds: float = QUIESCE_SECONDS


@dataclass
class Verdict:
    broken: list[Broken] = field(default_factory=list)
    text: str = ""


def run(orders: Orders) -> Verdict:
    """Raises what keeps the harness itself from working; what the farm breaks is in the verdict."""
    orders.folder.mkdir(parents=True)
    folder = orders.folder / "servers"
    with small_disk(folder / "postgres") as disk:
        servers = Servers(folder, orders.broker, disk)
        try:
            for name in NAMES:
                servers.start(name)
            with Network() as network:
                return _run(orders, servers, network)
        finally:
            servers.stop()


def _run(orders: Orders, servers: Servers, network: Network) -> Verdict:
    ledger, logs = orders.folder / "ledger", orders.folder / "logs"
    ledger.mkdir()
    logs.mkdir()
    environment = {
        **SECRETS,
        "AGENTFARM_CONFIG": str(ROOT / "tests/chaos/langgraph.json"),
        "AGENTFARM_LEASE_SECONDS": str(orders.lease_seconds),
        "AGENTFARM_RETRY_MESSAGE_SECONDS": "0.5",
        graphs.LEDGER: str(ledger),
    }
    tenants, keys = _set_up({**environment, **servers.direct_urls}, orders.folder)
    rng = random.Random(f"canaries {orders.seed}")
    canaries = {tenant: f"canary{rng.getrandbits(48):012x}" for tenant in TENANTS}
    skipped = _skipped(servers)
    kinds = [kind for kind in every_kind() if kind not in skipped and (not orders.only or kind in orders.only)]
    plan = plan_faults(orders.seed, orders.seconds, kinds=kinds, every_seconds=orders.every_seconds)
    fleet = Fleet(servers, network, environment, logs, random.Random(f"fleet {orders.seed}"))
    faults = Faults(fleet, servers, plan, slack=orders.slack)
    load = Load(fleet.urls, keys, canaries, orders.seed, orders.users)
    verdict = Verdict()
    try:
        fleet.start()
        print(f"the farm runs; {orders.users} users of {len(TENANTS)} tenants, {len(plan)} faults", flush=True)
        problems = asyncio.run(_storm(orders, load, faults))
        print("the storm is over, and every run", flush=True)
        facts = _facts(servers, load.book, tenants, canaries, ledger, logs, faults)
        verdict.broken = [*problems, *check_database(facts), *asyncio.run(check_answers(facts, fleet.urls[0], keys))]
        verdict.broken += _end(fleet)
        verdict.broken += check_after_the_end(facts)
    finally:
        fleet.kill_all()
    recovered = recovery.recoveries(facts, faults.fired, _now)
    verdict.broken += [
        *recovery.too_late(recovered, alone=orders.alone, slack=orders.slack),
        *_too_little(orders, facts),
    ]
    verdict.broken += [*_ended(fleet), *_not_fired(faults), *_left_behind(ledger)]
    verdict.text = report.render(
        title=_title(orders, plan),
        fired=faults.fired,
        recovered=recovered,
        slack=orders.slack,
        counts=facts.counts,
        book=load.book,
        fenced=sum(log.read_text(errors="replace").count("fenced out") for log in logs.glob("*.log")),
        restarts=fleet.restarts,
        ended=fleet.ended,
        skipped=[f"{kind}: {WHY_NOT[kind]}" for kind in skipped],
        broken=verdict.broken,
        known=dossier.render(facts, verdict.broken),
        logs=logs,
    )
    _tell_rows(facts, verdict, orders.folder)
    return verdict


def _facts(
    servers: Servers,
    book: Book,
    tenants: Mapping[str, UUID],
    canaries: Mapping[str, str],
    ledger: Path,
    logs: Path,
    faults: Faults,
) -> Facts:
    every_log = [*logs.glob("*.log"), *servers.folder.glob("*/*.log")]
    dark, cut = _spans(faults, "streams"), _spans(faults, "postgres")
    crashed = sorted(_spans(faults, "kill postgres") + _spans(faults, "fill postgres"))
    return Facts(servers.root_url, book, tenants, canaries, ledger, every_log, dark, cut, crashed)


def _spans(faults: Faults, word: str) -> list[Span]:
    """When faults of such kinds were on."""
    return [(one.at, one.over) for one in faults.fired if one.at and one.over and word in one.planned.kind]


# --------------------------------------------------------------------------- before


def _set_up(environment: Mapping[str, str], folder: Path) -> tuple[dict[str, UUID], dict[str, str]]:
    """Schema, three tenants, a key each: their ids and keys. Redis moves the runs of the third."""
    _manage(environment, "migrate", "--verbosity", "0")
    told = json.loads(_manage(environment, "farm_setup", "--json", "--secrets", str(folder / "secrets.json")))
    made = "Tenant.objects.create(slug='third', name='Third', persistence='redis')"
    shell = f"from tenants.models import Tenant; print({made}.id)"
    third = _manage(environment, "shell", "--no-imports", "-c", shell).split()[-1]
    key = _manage(environment, "farm_key", "issue", "third").strip()
    tenants = {tenant["slug"]: UUID(tenant["id"]) for tenant in told["tenants"]} | {"third": UUID(third)}
    return tenants, {tenant["slug"]: tenant["key"] for tenant in told["tenants"]} | {"third": key}


def _manage(environment: Mapping[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"manage.py {command[0]} failed:\n{done.stderr}")
    return done.stdout


# --------------------------------------------------------------------------- the storm


async def _storm(orders: Orders, load: Load, faults: Faults) -> list[Broken]:
    """Load and faults together; when the faults are over, everything under way comes to its end."""
    over = asyncio.Event()
    users = asyncio.create_task(load.run(over, patience_seconds=orders.patience_seconds * orders.slack))
    faults.start()
    await asyncio.wait([users], timeout=orders.seconds)
    problems = []
    try:
        await asyncio.to_thread(faults.finish, seconds=90.0 * orders.slack)
    except AssertionError as error:
        problems.append(Broken("farm", str(error)))
    over.set()
    try:
        await users
        await asyncio.to_thread(_quiesce, faults, orders.patience_seconds * orders.slack)
    except* TimeoutError as errors:
        problems += [Broken("P1", str(error)) for error in errors.exceptions]
    return [*problems, *(Broken("clients", refusal) for refusal in load.book.refusals)]


def _quiesce(faults: Faults, seconds: float) -> None:
    """Wait also for what no client waits for: runs whose request got no answer, ends that were not told."""
    sql = "SELECT count(*) FROM farm.run WHERE finished_at IS NULL OR announced_at IS NULL"
    with contextlib.suppress(AssertionError):  # what is open then, the invariants tell one by one
        wait_for(lambda: faults.query(sql) == [(0,)], what="quiet", seconds=seconds, every_seconds=0.2)


# --------------------------------------------------------------------------- after


def _end(fleet: Fleet) -> list[Broken]:
    try:
        codes = fleet.stop()
    except AssertionError as error:
        return [Broken("end", str(error))]
    return [Broken("end", f"{name} ended with {code} on SIGTERM") for name, code in codes.items() if code != 0]


def _ended(fleet: Fleet) -> list[Broken]:
    """Nothing but kill -9 ends a process here. The supervisor would hide it: what ends is started again."""
    # Celery gives a worker up whose child dies while it starts, which a fault may bring about.
    return [
        Broken("farm", f"{name} ended by itself with {code}; see its log")
        for name, code in fleet.ended
        if name != PREFORK
    ]


def _now() -> tuple[datetime, float]:
    return datetime.now(UTC), time.monotonic()


def _too_little(orders: Orders, facts: Facts) -> list[Broken]:
    """A storm over a farm that does nothing proves nothing, and one in which something never happens nothing of it."""
    runs, found = facts.counts.runs, []
    least = int(orders.least_runs * orders.seconds / orders.slack)
    if runs < least:
        found.append(Broken("work", f"{runs} runs in {orders.seconds:.0f} s of storm, and at least {least} must be"))
    if runs >= MANY_RUNS and not facts.counts.tried_later:
        found.append(Broken("work", f"of {runs} runs no node was tried again by a message"))
    return found


def _not_fired(faults: Faults) -> list[Broken]:
    return [
        Broken("plan", f"a planned fault never happened: {one.planned}: {one.failure or 'it had no time'}")
        for one in faults.fired
        if not one.evidence
    ]


def _left_behind(ledger: Path) -> list[Broken]:
    """Processes that should have died with their parents. They are ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(graphs.LEDGER) == str(ledger):
                found.append(Broken("end", f"a process outlived the farm: {' '.join(process.cmdline())[:200]}"))
                process.kill()
        except psutil.Error:  # gone, or another user's: not ours
            continue
    return found


def _tell_rows(facts: Facts, verdict: Verdict, folder: Path) -> None:
    """What the database says of the runs that broke something, for whoever looks."""
    runs = sorted({one.run_id for one in verdict.broken if one.run_id})
    if not runs:
        return
    tables = {
        "run": "SELECT * FROM farm.run WHERE run_id = ANY (%s::uuid[])",
        "node_execution": "SELECT * FROM farm.node_execution WHERE run_id = ANY (%s::uuid[]) ORDER BY created_at",
        "superstep": "SELECT * FROM farm.superstep WHERE run_id = ANY (%s::uuid[])",
    }
    rows = {table: facts.rows(sql, runs) for table, sql in tables.items()}
    (folder / "rows.json").write_text(json.dumps(rows, default=str, indent=1))
    streams = {run_id: facts.book.streams.get(run_id) for run_id in runs}
    (folder / "streams.json").write_text(json.dumps(streams, default=str, indent=1))


def _skipped(servers: Servers) -> list[str]:
    """Kinds of faults that cannot be here."""
    return [*([] if find_faketime() else ["wrong clock"]), *([] if servers.disk else ["fill postgres"])]


def _title(orders: Orders, plan: Sequence[Planned]) -> list[str]:
    return [
        f"# Chaos: seed {orders.seed}, {orders.seconds:.0f} s, broker {orders.broker}",
        "",
        (
            f"{len(plan)} faults over {orders.users} users of {len(TENANTS)} tenants."
            f" Again: `make chaos SEED={orders.seed} SECONDS={orders.seconds:.0f} BROKER={orders.broker}`"
        ),
    ]
