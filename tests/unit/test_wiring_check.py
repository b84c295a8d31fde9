"""A process that starts waits for a database that is away, but not for ever, and not when it is told to end."""

from types import SimpleNamespace

import pytest

from agentfarm import wiring
from agentfarm.errors import StoreUnavailable


class Database:
    """Answers from the time on that is said, the first being 1."""

    def __init__(self, answers_at: int) -> None:
        self.answers_at, self.asked = answers_at, 0

    def check(self) -> None:
        self.asked += 1
        if self.asked < self.answers_at:
            raise StoreUnavailable


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "START_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(wiring, "settings", lambda: SimpleNamespace(start_seconds=60.0))


def test_it_starts_when_the_database_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(3)
    monkeypatch.setattr(wiring, "_check", database.check)

    wiring.check()

    assert database.asked == 3


def test_who_is_told_to_end_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(3)
    monkeypatch.setattr(wiring, "_check", database.check)

    with pytest.raises(StoreUnavailable):
        wiring.check(gives_up=lambda: True)

    assert database.asked == 1


def test_it_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(3)
    monkeypatch.setattr(wiring, "_check", database.check)
    monkeypatch.setattr(wiring, "settings", lambda: SimpleNamespace(start_seconds=0.0))

    with pytest.raises(StoreUnavailable):
        wiring.check()
