"""Postgres' disk is full for a while: clients are told to come back, and all that was acknowledged ends."""

import errno
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agentfarm.errors import Misconfigured
from agentfarm.local.services import Services
from tests.farm import FarmProcesses, wait_for
from tests.integration.away.load import Load
from tests.integration.away.test_come_back import nobody_restarts, only_what_may_be_told, under_way
from tests.integration.streaming.valkey import Valkey
from tests.services import FAST

DISK_MEGABYTES = 512

#: Of WAL, kept small: it is the tables that are to find no room first.
SMALL = {**FAST, "min_wal_size": "32MB", "max_wal_size": "64MB"}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m,mode=755", "farm-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk of its own needs root, and the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """On another disk."""
    made = Valkey(tmp_path_factory.mktemp("valkey")).start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def mortals(disk: Path, valkey: Valkey) -> Iterator[Services]:
    given = {"REDIS_URL": valkey.url, "CELERY_BROKER_URL": valkey.url.removesuffix("0") + "1"}
    services = Services(disk / "servers", given=given, postgres_options=SMALL)
    try:
        services.start()
        yield services
    finally:
        services.reset()


@pytest.fixture(scope="module")
def addresses(mortals: Services) -> Mapping[str, str]:
    return mortals.environment()


def fill(ballast: Path) -> None:
    """To the last block, whatever Postgres takes or frees meanwhile."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def starts(mortals: Services) -> bool:
    """Whether it is up. It may be recovering."""
    try:
        mortals.start()
    except Misconfigured:
        return False
    return True


def test_a_disk_that_was_full_costs_time_and_no_run(farm: FarmProcesses, mortals: Services, disk: Path) -> None:
    ballast = disk / "ballast"
    with nobody_restarts(farm), Load(farm) as load:
        under_way(farm, load)
        fill(ballast)
        wait_for(lambda: load.told["503"] > 0, what="a client that is told to come back", seconds=120)

        ballast.unlink()
        # Where it had no room for its log Postgres has ended; who runs it starts it again.
        wait_for(lambda: starts(mortals), what="a Postgres that has room", seconds=60)
        back = time.monotonic()
        known = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > known + 2, what="new runs", seconds=60)
    load.check(seconds=120)

    print(f"all done {time.monotonic() - back:.1f} s after there was room again")
    only_what_may_be_told(load)
    assert load.slowest < 35  # a statement takes 30 s at most
