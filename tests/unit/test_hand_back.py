"""A worker that ends gives back what it holds within the time that it has, also where nobody answers."""

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from agentfarm import wiring
from agentfarm.persistence.redis_tier.leases import RedisHeld
from agentfarm.persistence.redis_tier.scripts import Place
from agentfarm.persistence.redis_tier.write_behind import WriteBehind

PLACE = Place(uuid4(), "main", uuid4(), uuid4(), 1)
HELD = RedisHeld(PLACE.tenant_id, PLACE.run_id, uuid4(), uuid4(), 1, 1, place=PLACE)


class SilentDatabase:
    """Of each home: does not answer before the test is over."""

    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()

    def at(self, home: str) -> "SilentDatabase":
        return self

    def call(self, statement: object, params: object, **more: object) -> Any:
        self.asked.set()
        self.answers.wait(20)
        return SimpleNamespace(rows=0)


@pytest.fixture
def database() -> Iterator[SilentDatabase]:
    made = SilentDatabase()
    yield made
    made.answers.set()


def behind_on(database: SilentDatabase) -> WriteBehind:
    scripts: Any = SimpleNamespace(
        peek=lambda key, recall=None: None,
        trim=lambda *_, **__: None,
        by_server=lambda *_, **__: (),
        servers=SimpleNamespace(of=lambda key: None),
        look=lambda place: None,
    )
    silent: Any = database
    return WriteBehind(scripts, silent)


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_silent_database_is_not_waited_for_longer_than_that(database: SilentDatabase, has_begun: bool) -> None:
    behind = behind_on(database)
    if has_begun:
        behind.recall_later(HELD)
        assert database.asked.wait(5)
    else:
        behind._recalls.append(HELD)

    began = time.monotonic()
    behind.close(seconds=0.2)

    assert time.monotonic() - began < 2
    assert database.asked.wait(5)  # what waits is begun all the same


def test_both_have_one_deadline_and_the_lease_has_a_share_of_it(database: SilentDatabase) -> None:
    told: list[tuple[str, float]] = []
    process = object.__new__(wiring._Process)
    lease: Any = SimpleNamespace(
        take_no_more=lambda: told.append(("no more", 0.0)), stop=lambda *, seconds: told.append(("lease", seconds))
    )
    executions: Any = SimpleNamespace(release_all=lambda: process.behind._recalls.append(HELD))
    process.lease, process.executions, process.behind = lease, executions, behind_on(database)

    began = time.monotonic()
    process.hand_back(seconds=1.5)

    spent = time.monotonic() - began
    (_, (what, left)) = told
    assert what == "lease"
    assert 1.0 <= spent < 5
    assert 0 <= left <= 0.5
    assert spent + left == pytest.approx(1.5, abs=0.1) or left == 0
