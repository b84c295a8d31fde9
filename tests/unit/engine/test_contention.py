"""A new run on a thread that has one: the four strategies, as plain values."""

from typing import get_args

import pytest

from agentfarm.engine.contention import MAX_WAITING_RUNS, Refuse, Start, Strategy, Wait, decide_admission

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_on_an_idle_thread_starts_whatever_its_strategy(strategy: Strategy) -> None:
    assert decide_admission(strategy, is_busy=False, waiting=0) == Start(first="nothing")


def test_reject_refuses_while_a_run_is_active() -> None:
    assert isinstance(decide_admission("reject", is_busy=True, waiting=0), Refuse)


def test_reject_refuses_while_a_run_waits() -> None:
    assert isinstance(decide_admission("reject", is_busy=False, waiting=1), Refuse)


def test_enqueue_waits_behind_those_who_came_before() -> None:
    assert decide_admission("enqueue", is_busy=True, waiting=0) == Wait(place=1)
    assert decide_admission("enqueue", is_busy=True, waiting=5) == Wait(place=6)


def test_enqueue_is_refused_when_too_many_wait() -> None:
    assert decide_admission("enqueue", is_busy=True, waiting=MAX_WAITING_RUNS - 1) == Wait(place=MAX_WAITING_RUNS)

    refused = decide_admission("enqueue", is_busy=True, waiting=MAX_WAITING_RUNS)

    assert isinstance(refused, Refuse)
    assert str(MAX_WAITING_RUNS) in refused.reason


@pytest.mark.parametrize("waiting", [0, MAX_WAITING_RUNS, 10 * MAX_WAITING_RUNS])
def test_interrupt_and_rollback_start_at_once_however_many_wait(waiting: int) -> None:
    assert decide_admission("interrupt", is_busy=True, waiting=waiting) == Start(first="stop")
    assert decide_admission("rollback", is_busy=True, waiting=waiting) == Start(first="undo")
