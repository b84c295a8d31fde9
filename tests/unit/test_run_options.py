"""Who says how a run is executed: the run, else its assistant, else its tenant."""

import pytest

from agentfarm.run_options import RunAhead, RunChoices, RunOptions, decide_options

MOST = RunAhead(nodes=10, seconds=1.0)
NOTHING = RunChoices()


@pytest.mark.parametrize(
    ("run", "tenant", "decided"),
    [
        (NOTHING, NOTHING, RunOptions()),
        (NOTHING, RunChoices(run_ahead=True), RunOptions(10, 1.0)),
        (RunChoices(run_ahead=False), RunChoices(run_ahead=True), RunOptions()),
        (RunChoices(run_ahead=True), RunChoices(run_ahead=False), RunOptions(10, 1.0)),
        (RunChoices(run_ahead=RunAhead(nodes=3)), NOTHING, RunOptions(3, 1.0)),
        (RunChoices(run_ahead=RunAhead(seconds=0.2)), NOTHING, RunOptions(10, 0.2)),
        (RunChoices(persistence="redis"), RunChoices(run_ahead=True), RunOptions(10, 1.0, "redis")),
        (RunChoices(run_ahead=True), RunChoices(persistence="redis"), RunOptions(10, 1.0, "redis")),
        (RunChoices(persistence="postgres"), RunChoices(persistence="redis"), RunOptions()),
    ],
    ids=str,
)
def test_what_a_run_does_not_say_its_tenant_has_said(run: RunChoices, tenant: RunChoices, decided: RunOptions) -> None:
    assert decide_options([run, NOTHING, tenant], most=MOST) == decided


def test_an_assistant_is_asked_before_a_tenant_and_after_a_run() -> None:
    assistant, tenant = RunChoices(run_ahead=True, persistence="redis"), RunChoices(run_ahead=False)

    decided = decide_options([RunChoices(persistence="postgres"), assistant, tenant], most=MOST)

    assert decided == RunOptions(10, 1.0)


@pytest.mark.parametrize(("durability", "waits"), [(None, True), ("sync", True), ("exit", True), ("async", False)])
@pytest.mark.parametrize("run_ahead", [False, True])
def test_only_who_asks_for_it_goes_on_before_the_disk_has_it(
    durability: str | None, waits: bool, run_ahead: bool
) -> None:
    asked = RunChoices(run_ahead=run_ahead)

    assert decide_options([asked], most=MOST, durability=durability).waits_for_disk is waits
