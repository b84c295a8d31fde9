import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from agentfarm.errors import StoreUnavailable
from agentfarm.flow.heal import Healed
from agentfarm.records import Delayed
from workers import schedule
from workers.schedule import Cleaner, Healer


class Sweeps:
    """A sweep that raises what it is told, one after the other, and then tells that it was called once more.

    soon  what it finds each time
    """

    soon: Sequence[Delayed] = ()

    def __init__(self, *raises: Exception) -> None:
        self.raises = list(raises)
        self.went_on = threading.Event()

    def __call__(self) -> Sequence[Delayed]:
        if self.raises:
            raise self.raises.pop(0)
        self.went_on.set()
        return self.soon


def test_the_healer_goes_on_whatever_a_sweep_raises() -> None:
    sweep = Sweeps(StoreUnavailable(), RuntimeError("a bug"))
    healer = Healer(sweep, lambda due: None, every_seconds=0.001)

    healer.start()

    assert sweep.went_on.wait(5)
    healer.stop()
    assert not healer.is_alive()


def test_the_cleaner_goes_on_whatever_a_cleaning_raises() -> None:
    clean_up = Sweeps(StoreUnavailable(), RuntimeError("a bug"))
    cleaner = Cleaner(clean_up, every_seconds=0.001)

    cleaner.start()

    assert clean_up.went_on.wait(5)
    cleaner.stop()
    assert not cleaner.is_alive()


def test_a_cleaning_that_takes_long_keeps_neither_a_sweep_nor_the_health_file_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = SimpleNamespace(heal_seconds=0.001, health_file=tmp_path / "health")
    cleaning, swept, done, at_exit = threading.Event(), threading.Event(), threading.Event(), []

    def sweep_once(farm: object) -> Healed:
        if cleaning.is_set():
            swept.set()
        return Healed()

    def clean_up_once(farm: object) -> None:
        cleaning.set()
        done.wait(20)

    monkeypatch.setattr(schedule, "settings", lambda: chosen)
    monkeypatch.setattr(schedule.wiring, "farm", lambda: None)
    monkeypatch.setattr(schedule, "sweep_once", sweep_once)
    monkeypatch.setattr(schedule, "clean_up_once", clean_up_once)
    monkeypatch.setattr(schedule.atexit, "register", at_exit.append)

    schedule._begin()

    assert swept.wait(5)
    assert not done.is_set()
    assert chosen.health_file.exists()
    done.set()
    (stop,) = at_exit
    stop()
    assert {"healer", "cleaner"}.isdisjoint(thread.name for thread in threading.enumerate())


def test_the_healer_tells_how_far_it_is_behind() -> None:
    lags: list[float] = []
    over = threading.Event()

    def sweep() -> Sequence[Delayed]:
        time.sleep(0.2)
        over.set()
        return ()

    healer = Healer(sweep, lambda due: None, every_seconds=3600, note=lags.append)
    healer.start()
    assert over.wait(5)
    healer.stop()

    (lag,) = lags
    assert lag >= 0.2


def test_a_long_lag_is_warned_of_and_the_health_file_has_it_as_a_gauge(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "health"
    monkeypatch.setattr(schedule, "settings", lambda: SimpleNamespace(health_file=file))

    schedule._note_lag(0.25)
    assert file.read_text().splitlines()[-1] == "agentfarm_healer_lag_seconds 0.250"
    assert not caplog.records

    schedule._note_lag(schedule.LAG_SECONDS + 1)

    assert [record.lag_seconds for record in caplog.records] == [6.0]  # type: ignore[attr-defined]  # of its extra


def test_a_stop_does_not_wait_for_the_next_sweep() -> None:
    sweep = Sweeps()
    healer = Healer(sweep, lambda due: None, every_seconds=3600)
    healer.start()
    assert sweep.went_on.wait(5)

    healer.stop()

    assert not healer.is_alive()


def delayed(seconds: float) -> Delayed:
    return Delayed(uuid4(), uuid4(), uuid4(), uuid4(), due_at=time.monotonic() + seconds)


def test_retries_are_published_when_they_are_due_and_not_with_the_next_sweep() -> None:
    sweep, told, published = Sweeps(), threading.Event(), []
    first, second, _ = sweep.soon = [delayed(0.05), delayed(0.15), delayed(7200)]

    def publish(due: Sequence[Delayed]) -> None:
        published.append((list(due), time.monotonic()))
        if second in due:
            told.set()
        raise StoreUnavailable  # which ends nothing

    healer = Healer(sweep, publish, every_seconds=3600)
    healer.start()

    assert told.wait(5)
    healer.stop()
    assert [one for due, _ in published for one in due] == [first, second]
    assert all(one.due_at <= at for due, at in published for one in due)
