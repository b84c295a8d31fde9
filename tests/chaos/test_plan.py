"""A plan is its seed's, and leaves nothing out that there is time for."""

from tests.chaos.plan import EVERY_SECONDS, every_kind, plan_faults

KINDS = every_kind()


def test_a_seed_makes_the_same_plan_each_time_and_another_seed_another() -> None:
    plans = [plan_faults(seed, 90.0, kinds=KINDS, every_seconds=3.0) for seed in (7, 7, 8)]

    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_a_plan_of_ninety_seconds_has_every_kind_of_fault() -> None:
    for seed in range(50):
        plan = plan_faults(seed, 90.0, kinds=KINDS, every_seconds=EVERY_SECONDS)

        assert {fault.kind for fault in plan} == set(KINDS)
        assert [fault.at_seconds for fault in plan] == sorted(fault.at_seconds for fault in plan)
        assert 0 < plan[0].at_seconds < plan[-1].at_seconds < 90


def test_a_plan_too_short_for_all_kinds_repeats_none() -> None:
    plan = plan_faults(1, 30.0, kinds=KINDS, every_seconds=3.0)

    assert len({fault.kind for fault in plan}) == len(plan) == 7
