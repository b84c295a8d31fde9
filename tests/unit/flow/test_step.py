"""Claim, execute, commit, send what is next; and what every way out of it leaves behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.graphs import GraphRegistry
from agentfarm.engine.steps import NodeCall, RunSpec, SegmentResult
from agentfarm.errors import GraphChanged, LeaseLost, StoreUnavailable, ValueLost
from agentfarm.flow import step
from agentfarm.flow.farm import Farm
from agentfarm.flow.step import execute_node
from agentfarm.flow.wave import Waves
from agentfarm.ids import new_id
from agentfarm.messages import ExecuteNode
from agentfarm.records import Claimed, Committed, Ended, Refused
from agentfarm.run_options import RunAhead, RunOptions
from agentfarm.telemetry.tracebacks import render_traceback
from tests.unit.flow.world import World


class State(TypedDict, total=False):
    text: str


def _graph() -> Any:
    builder = StateGraph(State)
    builder.add_node("say", lambda state: {"text": "said"})
    builder.add_edge(START, "say")
    return builder.compile()


@pytest.fixture
def farm(farm: Farm) -> Farm:
    return replace(farm, graphs=GraphRegistry({"g": describe_graph("g", _graph())}))


@pytest.fixture
def claimed(message: ExecuteNode) -> Claimed:
    """A start whose first node is handed over."""
    run = RunSpec(
        run_id=str(message.run_id),
        thread_id="00000000-0000-7000-8000-000000000001",
        graph_id="g",
        input={"text": "in"},
        config={},
        kwargs={"stream_mode": ["values"], "durability": "async"},
        modes=("values",),
    )
    saver = cast("Any", InMemorySaver())
    return Claimed(message, "start", message.run_id, run, None, fence=1, attempt=1, saver=saver)


def test_what_a_segment_said_is_in_its_stream_before_the_commit_and_what_comes_next_is_sent_after_it(
    farm: Farm, world: World, message: ExecuteNode, claimed: Claimed
) -> None:
    world.claims, world.commits = [claimed], [Committed(ready=(message,))]

    outcome = execute_node(farm, message)

    assert outcome == "committed"
    assert [call[0] for call in world.calls] == ["flush", "commit", "publish"]
    assert [event.name for event in world.events] == ["metadata", "values"]


def test_a_run_that_nobody_streams_waits_for_no_stream(
    farm: Farm, world: World, message: ExecuteNode, claimed: Claimed
) -> None:
    claimed.run = replace(claimed.run, modes=(), kwargs={"stream_mode": [], "durability": "async"})
    world.claims, world.commits = [claimed], [Committed(ready=(message,))]

    execute_node(farm, message)

    assert [call[0] for call in world.calls] == ["commit", "publish"]


def test_who_was_fenced_out_sends_nothing(farm: Farm, world: World, message: ExecuteNode, claimed: Claimed) -> None:
    world.claims, world.commits = [claimed], [LeaseLost(execution_id="e")]

    assert execute_node(farm, message) == "fenced"
    assert [call[0] for call in world.calls] == ["flush", "commit"]


def test_a_database_that_is_away_gets_its_claim_back_and_the_message_comes_again(
    farm: Farm, world: World, message: ExecuteNode, claimed: Claimed
) -> None:
    world.claims, world.commits = [claimed], [StoreUnavailable()]

    with pytest.raises(StoreUnavailable):
        execute_node(farm, message)

    assert [call[0] for call in world.calls] == ["flush", "commit", "release"]


def test_what_cannot_be_saved_ends_the_run_instead(
    farm: Farm, world: World, message: ExecuteNode, claimed: Claimed, ended: Ended
) -> None:
    world.claims = [claimed]
    lost = ValueLost(place="Channel 'c'", type="T", todo="Do something.")
    world.commits = [lost, Committed(ended=replace(ended, status="error"))]

    assert execute_node(farm, message) == "committed"
    assert [call[2] for call in world.did("commit")] == [None, "error"]
    assert world.did("close_run") != []


def test_a_graph_that_this_worker_lacks_ends_the_run(
    farm: Farm, world: World, message: ExecuteNode, claimed: Claimed, ended: Ended
) -> None:
    claimed.run = replace(claimed.run, graph_id="unknown")
    world.claims, world.commits = [claimed], [Committed(ended=ended)]

    execute_node(farm, message)

    assert world.did("commit")[0][2] == "error"


@pytest.mark.parametrize("why", ["gone", "busy"])
def test_a_message_with_nothing_to_do_is_done(farm: Farm, world: World, message: ExecuteNode, why: Any) -> None:
    world.claims = [Refused(why)]

    assert execute_node(farm, message) == why
    assert world.calls == []


def test_a_message_that_comes_again_sends_what_its_first_delivery_may_not_have_sent(
    farm: Farm, world: World, message: ExecuteNode
) -> None:
    world.claims, world.open_messages = [Refused("gone")], (message,)

    execute_node(farm, message, redelivered=True)

    assert world.calls == [("publish", message)]


def test_a_node_that_this_build_of_the_graph_has_lost_ends_the_run_which_names_it(
    farm: Farm, world: World, message: ExecuteNode, claimed: Claimed, ended: Ended
) -> None:
    call = NodeCall("gone", ("__pregel_pull", "gone"), True, 25, "", "c", "e", False, None, False, True)
    world.claims = [replace(claimed, kind="node", call=call)]
    world.commits = [Committed(ended=replace(ended, status="error"))]

    execute_node(farm, message)

    (result,) = world.results
    assert type(result.error) is GraphChanged
    assert "node 'gone', which is next, is gone" in str(result.error)


# --------------------------------------------------------------------------- going ahead


class Watcher:
    """Who is told of nodes without a message of their own."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def __call__(self, message: ExecuteNode) -> Iterator[Any]:
        self.told.append(message.shadow)
        yield self.told.append


def a_node(claimed: Claimed, name: str = "say") -> Claimed:
    """Of a run that may go ahead. It fails, since there is no such checkpoint; what is next is the fakes' business."""
    call = NodeCall(name, ("__pregel_pull", name), True, 25, "", "c", "e", False, None, False, True)
    run = replace(claimed.run, options=RunOptions(10, 60.0))
    return replace(claimed, kind="node", call=call, run=run, message=replace(claimed.message, node=name))


@pytest.fixture
def eager(farm: Farm) -> Farm:
    return replace(farm, run_ahead=RunAhead(10, 60.0))


def test_each_node_that_a_worker_goes_on_with_is_committed_and_told_by_itself(
    eager: Farm, world: World, message: ExecuteNode, claimed: Claimed, ended: Ended
) -> None:
    one, two, three = (a_node(claimed, name) for name in ("one", "two", "three"))
    world.claims = [one]
    world.commits = [Committed(leased=two), Committed(leased=three), Committed(ended=ended)]
    watcher = Watcher()

    outcome = execute_node(eager, message, tell=watcher)

    assert outcome == "committed"
    assert watcher.told == ["g.two", "committed", "g.three", "committed"]
    assert len(world.did("commit")) == 3


def test_a_start_goes_on_with_its_first_node_under_its_own_name(
    eager: Farm, world: World, message: ExecuteNode, claimed: Claimed, ended: Ended
) -> None:
    world.claims, world.commits = [claimed], [Committed(leased=a_node(claimed)), Committed(ended=ended)]
    watcher = Watcher()

    execute_node(eager, message, tell=watcher)

    assert watcher.told == []
    assert world.did("commit")[0][3] is True


def test_who_is_fenced_out_ahead_says_so_and_goes_no_further(
    eager: Farm, world: World, message: ExecuteNode, claimed: Claimed
) -> None:
    world.claims = [a_node(claimed)]
    world.commits = [Committed(leased=a_node(claimed, "two")), LeaseLost(execution_id="e")]
    watcher = Watcher()

    assert execute_node(eager, message, tell=watcher) == "fenced"
    assert watcher.told == ["g.two", "fenced"]


def test_what_a_database_that_went_away_may_have_leased_ahead_is_given_back(
    eager: Farm, world: World, message: ExecuteNode, claimed: Claimed
) -> None:
    world.claims = [a_node(claimed)]
    world.commits = [Committed(leased=a_node(claimed, "two")), StoreUnavailable()]

    with pytest.raises(StoreUnavailable):
        execute_node(eager, message)

    assert world.calls[-1] == ("release",)


# --------------------------------------------------------------------------- waves


def a_sibling(claimed: Claimed, name: str = "say", *, in_wave: bool = True) -> Claimed:
    call = NodeCall(name, ("__pregel_pull", name), False, 25, "", "c", "e", False, None, False, True)
    message = replace(claimed.message, execution_id=new_id(), node=name)
    return replace(claimed, kind="node", call=call, message=message, in_wave=in_wave)


class Crowd:
    def __init__(self, *, is_ending: bool = False) -> None:
        self.is_ending = is_ending

    def has_work(self, queue: str) -> bool:
        return False


@pytest.fixture
def settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sibling is executed well: no graph, no checkpoint."""
    monkeypatch.setattr(step, "_run_segment", lambda *_: SegmentResult(outcome="done"))


@pytest.mark.usefixtures("settles")
def test_who_settles_one_of_a_wave_goes_on_with_the_next(
    farm: Farm, world: World, message: ExecuteNode, claimed: Claimed
) -> None:
    world.claims = [a_sibling(claimed, "one")]
    world.commits = [Committed(leased=a_sibling(claimed, "two")), Committed()]
    watcher = Watcher()

    execute_node(farm, message, tell=watcher)

    assert [call[3] for call in world.did("commit")] == [True, True]
    assert watcher.told == ["g.two", "committed"]


@pytest.mark.usefixtures("settles")
@pytest.mark.parametrize(("in_wave", "is_ending"), [(False, False), (True, True)])
def test_who_is_in_no_wave_or_is_to_end_takes_no_other(
    farm: Farm, world: World, message: ExecuteNode, claimed: Claimed, in_wave: bool, is_ending: bool
) -> None:
    world.claims, world.commits = [a_sibling(claimed, in_wave=in_wave)], [Committed(ready=(message,))]

    execute_node(replace(farm, backlog=Crowd(is_ending=is_ending)), message)

    assert [call[3] for call in world.did("commit")] == [False]
    assert world.did("publish") == [("publish", message)]


@pytest.mark.usefixtures("settles")
def test_who_is_fenced_out_of_a_wave_has_the_others_sent_for(
    farm: Farm, world: World, message: ExecuteNode, claimed: Claimed
) -> None:
    world.claims, world.commits = [a_sibling(claimed)], [LeaseLost(execution_id="e")]
    world.rest = (replace(message, node="waits"),)

    assert execute_node(farm, message) == "fenced"
    assert world.did("publish") == [("publish", *world.rest)]


def test_a_wave_begins_where_all_siblings_are_known_to_be_short(
    farm: Farm, world: World, message: ExecuteNode, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spread(_: Farm, work: Claimed, __: object) -> SegmentResult:
        calls = tuple(a_sibling(claimed).call for _ in range(50))
        return SegmentResult(outcome="done") if work.call else SegmentResult(next=cast("Any", calls))

    monkeypatch.setattr(step, "_run_segment", spread)
    farm = replace(farm, waves=Waves(3))

    world.claims, world.commits = [claimed], [Committed(leased=a_sibling(claimed, in_wave=False)), Committed()]
    execute_node(farm, message)
    world.claims, world.commits = [claimed], [Committed(leased=a_sibling(claimed)), Committed()]
    execute_node(farm, message)

    assert [call[3:] for call in world.did("commit")] == [(True, None), (False, None), (True, 3), (True, None)]


def test_where_a_node_failed_is_in_the_log_and_what_it_said_is_not(
    farm: Farm, claimed: Claimed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> SegmentResult:
        try:
            raise KeyError("a secret")
        except KeyError as error:
            return SegmentResult(status="error", error=error)

    monkeypatch.setattr(step, "run_segment", fails)

    step._run_segment(farm, claimed, cast("Any", Mock()))

    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert told.exc_info is not None
    assert told.exc_info[1] is not None
    said = f"{told.getMessage()} {render_traceback(told.exc_info[1])}"
    assert f"{__file__}:" in said
    assert "KeyError" in said
    assert "secret" not in said
