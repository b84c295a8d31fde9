"""What a soak tells: what grows by name, a process that was started again apart from the one before."""

import pytest

from tests.soak.plan import SPARED, plan_soak
from tests.soak.report import judge_all, render, unjudged
from tests.soak.samples import Sample

HOUR = 3600.0


def soak(leak: float) -> list[tuple[float, Sample]]:
    """One worker that lives, one that is started anew every ten minutes and grows as it warms up each time."""
    samples = []
    for at in range(0, int(HOUR), 10):
        life = at // 600
        sample: Sample = {
            ("memory", "one 11"): 100 + leak * at / HOUR,
            ("memory", f"two {life}"): 80 + (at % 600) / 20,
            ("kept rows", "farm.worker"): 4.0 + life,
        }
        samples.append((float(at), sample))
    return samples


def test_the_report_names_the_process_that_leaks_and_no_other() -> None:
    judged = judge_all(soak(leak=40.0), HOUR)
    text = render(["# Soak"], judged, {}, [], HOUR)

    assert [(one.kind.name, one.name) for one in judged if one.grows] == [("memory", "one 11")]
    assert "**grows**: memory of one 11" in text
    assert "Nothing grows" not in text


def test_a_soak_without_a_leak_says_so_and_names_what_it_could_not_judge() -> None:
    judged = judge_all(soak(leak=0.0), HOUR)
    text = render(["# Soak"], judged, {}, [], HOUR)

    assert not any(one.grows for one in judged)
    assert "Nothing grows" in text
    assert unjudged(judged) == ["two"]
    assert "no life was long enough to judge: two" in text


def test_a_soak_of_minutes_judges_nothing() -> None:
    assert {one.verdict.answer for one in judge_all(soak(leak=40.0)[:30], 300.0)} == {"short"}


@pytest.mark.parametrize(("late_turns", "grows"), [(1.0, True), (2.0, False)])
def test_rows_that_grow_as_the_load_does_are_no_leak(late_turns: float, grows: bool) -> None:
    samples: list[tuple[float, Sample]] = []
    turns = 0.0
    for at in range(0, int(HOUR), 10):
        turns += 10 * (1.0 + (late_turns - 1.0) * at / HOUR)
        samples.append((float(at), {("turns", "all"): turns, ("rows", "farm.run"): 1000 + 500 * at / HOUR}))

    assert [one.name for one in judge_all(samples, HOUR) if one.grows] == (["farm.run"] if grows else [])


def test_the_one_that_must_grow_old_is_never_killed_and_servers_die_early() -> None:
    plan = plan_soak(7, HOUR, every_seconds=40.0)

    ended = [one for one in plan if one.kind in {"kill worker", "freeze worker"}]
    servers = [one.at_seconds for one in plan if one.kind in {"kill postgres", "kill streams", "kill broker"}]
    assert ended
    assert {one.target for one in ended} == {"two"}
    assert SPARED not in {one.target for one in plan if one.kind.startswith("kill")}
    assert servers
    assert max(servers) <= 0.3 * HOUR
