"""Whether the servers behind this process are there: asked briefly, and not for each probe."""

import threading
import time
from typing import Any

import httpx
import pytest

from agentfarm.api import health as module
from agentfarm.api.health import Health
from agentfarm.errors import StoreUnavailable
from tests.unit.api.fakes import FakeFarm


async def test_ready_names_what_is_down_and_stays_in_service(client: httpx.AsyncClient, fakes: FakeFarm) -> None:
    fakes.log.is_up = False

    answer = await client.get("/ready")

    assert answer.status_code == 200
    assert answer.json() == {"ok": True, "services": {"database": True, "streams": False, "broker": True}}


async def test_without_the_database_it_is_not_ready(
    client: httpx.AsyncClient, fakes: FakeFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(raw_key: str) -> Any:
        raise StoreUnavailable

    monkeypatch.setattr(fakes.keys, "find", away)

    answer = await client.get("/ready")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"ok": False, "services": {"database": False, "streams": True, "broker": True}}


def test_one_that_says_nothing_is_down_in_time_and_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(module, "KEEP_SECONDS", 0.0)
    answers = threading.Event()
    asked: list[str] = []

    def silent() -> bool:
        asked.append("silent")
        return answers.wait(20)

    health = Health({"one": silent, "other": lambda: True})
    began = time.monotonic()
    looks = [health.look() for _ in range(5)]
    took = time.monotonic() - began
    answers.set()

    assert looks == [{"one": False, "other": True}] * 5
    assert took < 5
    assert asked == ["silent"]


def test_many_probes_ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_SECONDS", 60.0)
    asked: list[str] = []
    health = Health({"one": lambda: asked.append("one") is None})

    assert [health.look() for _ in range(50)] == [{"one": True}] * 50
    assert asked == ["one"]


def test_a_question_that_fails_otherwise_is_down() -> None:
    def broken() -> bool:
        raise LookupError

    assert Health({"one": broken}).look() == {"one": False}
