"""Tests of langgraph-checkpoint-postgres, over our parts in place of its own.

They know nothing of tenants: a plugin gives each database that a test makes a tenant of its own, behind the walls of a
farm's schema. There is no stock to ask here, since every test passes there: what fails is named in
known_differences.txt with its reason (it looks at the tables of the other saver), or differs.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytests import is_known, known_differences, run_pytest
from sdists import CACHE, ROOT, Sdist

from agentfarm.local.postgres import ROOT as ROOT_ROLE
from agentfarm.local.postgres import Postgres
from agentfarm.local.services import Services
from agentfarm.local.state import State

POSTGRES = Sdist("langgraph-checkpoint-postgres", lock="requirements-dev.txt")


@dataclass(frozen=True, slots=True)
class Part:
    """tests: files of the sdist that are about it"""

    what: str
    plugin: str
    tests: tuple[str, ...]


OVER_POSTGRES = {
    "saver": Part(
        "tests of langgraph-checkpoint-postgres' saver, over ours",
        "saver_plugin",
        (
            "tests/test_sync.py",
            "tests/test_async.py",
            "tests/test_prune.py",
            "tests/test_delta_pagination.py",
            "tests/test_delta_plain_value_seed.py",
            "tests/test_conformance_delta.py",
        ),
    ),
    "store": Part(
        "tests of langgraph-checkpoint-postgres' store, over ours",
        "store_plugin",
        (
            "tests/test_store.py",
            "tests/test_async_store.py",
            # 6,000 and 60,000 calls at once, of which the other one makes a few statements and ours a transaction each.
            "--deselect=tests/test_async_store.py::test_large_batches",
            "--deselect=tests/test_async_store.py::test_large_batches_async",
        ),
    ),
}


def run_over_postgres(mode: str, *, workers: int) -> bool:
    """Whether our part differs. Says what it found."""
    part, known = OVER_POSTGRES[mode], known_differences(mode)
    suite, release = POSTGRES.fetch(), POSTGRES.locked_release()
    with farm_schema() as environment:
        report = run_pytest(suite, mode, part.tests, plugin=part.plugin, workers=workers, environment=environment)
    if not report.did["calls"]:
        raise SystemExit(f"upstream {mode}: our part was not called at all, so nothing was tested.")
    differing = [test for test in report.failed if not is_known(test, known)]
    for test in differing:
        print(f"DIFFERS  {test}\n         {report.errors.get(test, '')[:300]}")
    for test in sorted(t for t in known if not any(is_known(failed, {t: ""}) for failed in report.failed)):
        print(f"no difference any more, take it out of known_differences.txt: {test}")
    counts = Counter(report.outcomes.values())
    print(
        f"upstream {POSTGRES.package} {release}, {mode}: {counts['passed']} passed, {counts['skipped']} skipped, "
        f"{len(report.failed) - len(differing)} known differences, {len(differing)} differ; "
        f"{report.did['calls']} calls of ours"
    )
    return bool(differing)


@contextmanager
def farm_schema() -> Iterator[dict[str, str]]:
    """A Postgres of our own with the farm's schema in it; how to reach it. Gone afterwards."""
    services = Services(
        Path(CACHE) / f"servers-{os.getpid()}",
        given={},
        postgres_options={"fsync": "off", "max_connections": "400"},
    )
    services.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        services.start()
        postgres = Postgres(State(services.folder))
        postgres.query(f"CREATE DATABASE {ROOT_ROLE}")  # where one is who names no database: the tests name none
        environment = {
            **services.environment(),
            "DJANGO_SETTINGS_MODULE": "agentfarm.settings",
            "LANGGRAPH_STRICT_MSGPACK": "true",
            "AGENTFARM_SECRET_KEY": "for-tests-only-for-tests-only-for-tests-only",
            "AGENTFARM_UPSTREAM_FARM": postgres.url(ROOT_ROLE),
            "AGENTFARM_UPSTREAM_ROOT": postgres.url(ROOT_ROLE, ROOT_ROLE),
        }
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=ROOT, env={**os.environ, **environment}, check=True)
        yield {**environment, "PYTEST_ADDOPTS": "-o asyncio_mode=auto"}  # as that project has it
    finally:
        services.reset()
