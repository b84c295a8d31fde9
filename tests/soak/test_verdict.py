"""The soak's verdict tells a leak from all that only looks like one."""

import random
from collections.abc import Callable

import pytest

from tests.soak.verdict import Point, Tolerance, judge

HOUR = 3600
TOLERANCE = Tolerance(8.0)


def series(value: Callable[[float], float], *, seconds: int = HOUR, noise: float = 1.0, seed: int = 7) -> list[Point]:
    rng = random.Random(seed)
    return [(float(at), value(at) + rng.uniform(-noise, noise)) for at in range(0, seconds, 10)]


def answer(points: list[Point], tolerance: Tolerance = TOLERANCE) -> str:
    return judge(points, tolerance, warm_up_seconds=300).answer


def test_a_leak_is_found_and_its_slope_told() -> None:
    verdict = judge(series(lambda at: 100 + 30 * at / HOUR), TOLERANCE, warm_up_seconds=300)

    assert verdict.answer == "growing"
    assert verdict.an_hour == pytest.approx(30, rel=0.1)


def test_a_leak_beneath_a_saw_tooth_is_found() -> None:
    assert answer(series(lambda at: 100 + 40 * (at % 300) / 300 + 30 * at / HOUR)) == "growing"


def test_a_leak_in_steps_of_one_is_found() -> None:
    descriptors = series(lambda at: 20 + at // 400, noise=0.0)

    assert answer(descriptors, Tolerance(3.0)) == "growing"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a level", lambda at: 100.0),
        ("a saw-tooth", lambda at: 100 + 60 * (at % 300) / 300),
        ("a saw-tooth of a third of the time", lambda at: 100 + 60 * (at % 1200) / 1200),
        ("a cache that fills", lambda at: 100 + min(at, 1200) / 40),
        ("one step up", lambda at: 100.0 if at < 1750 else 140.0),
        ("a wave", lambda at: 100 + (30 if at // 600 % 2 else 0)),
        ("one that falls", lambda at: 200 - at / 60),
        ("a flood that is over", lambda at: 1000.0 if 1500 < at < 2100 else 0.0),
        ("growth that is tolerated", lambda at: 100 + 5 * at / HOUR),
    ],
)
def test_what_does_not_grow_for_ever_is_flat(name: str, value: Callable[[float], float]) -> None:
    assert answer(series(value)) == "flat"


def test_a_process_that_warms_up_is_judged_by_what_comes_after() -> None:
    assert answer(series(lambda at: min(at, 290.0))) == "flat"


def test_a_few_wild_samples_make_no_leak_and_hide_none() -> None:
    flat, leak = series(lambda at: 100.0), series(lambda at: 100 + 30 * at / HOUR)
    for wild in (flat, leak):
        for place in range(7, len(wild), 50):
            wild[place] = (wild[place][0], 900.0)

    assert (answer(flat), answer(leak)) == ("flat", "growing")


def test_a_life_too_short_to_judge_is_called_so() -> None:
    assert answer(series(lambda at: at, seconds=500)) == "short"
    assert answer([]) == "short"
