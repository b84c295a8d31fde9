"""What a process has loaded, no collection looks at again."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from agentfarm import wiring
from agentfarm.garbage import spare_what_stays
from workers.lifecycle import begin_process


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_what_is_here_is_spared_and_what_comes_later_is_collected() -> None:
    loaded: list[Any] = [[]]
    spare_what_stays()
    later: list[Any] = [[]]

    looked_at = {id(one) for one in gc.get_objects()}

    assert id(loaded) not in looked_at
    assert id(later) in looked_at


def test_what_is_garbage_already_goes() -> None:
    class Gone:
        alive = 0

        def __init__(self) -> None:
            self.itself = self
            Gone.alive += 1

        def __del__(self) -> None:
            Gone.alive -= 1

    Gone()
    assert Gone.alive == 1

    spare_what_stays()

    assert Gone.alive == 0


def test_a_worker_spares_what_it_has_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "start_worker", lambda *_, **__: None)

    begin_process("one@here")

    assert gc.get_freeze_count() > 10_000
