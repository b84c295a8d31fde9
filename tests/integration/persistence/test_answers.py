"""What a client that waited for a run reads, over real stores: the answer its own, whatever the thread does since."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict
from uuid import UUID, uuid4

import pytest
from langgraph.channels.untracked_value import UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel

from agentfarm.engine.graph_factories import Shared
from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.jsonable import to_json
from agentfarm.engine.segment import SegmentRequest, run_segment
from agentfarm.engine.store_config import StoreConfig
from agentfarm.errors import NotFound, ThreadBusy
from agentfarm.flow.answers import read_answer
from agentfarm.flow.farm import Farm
from agentfarm.flow.read import get_history, get_state, thread_view, update_state
from agentfarm.persistence.checkpoints import TenantSaver
from agentfarm.persistence.database import Databases
from agentfarm.persistence.store import PostgresStores
from agentfarm.persistence.threads import PostgresThreads
from agentfarm.tenancy import Tenant
from tests.integration.persistence.farmhands import Hand
from tests.integration.persistence.postgres import Home
from tests.integration.persistence.runs.parts import new_run
from tests.integration.persistence.test_engine_over_postgres import Farm as Line
from tests.integration.persistence.test_engine_over_postgres import State, asking, line


def farm_of(worked: Line) -> Farm:
    """The flow over the same stores; nothing of it publishes or streams here."""
    nothing: Any = None
    loaded = describe_graph("agent", worked.graph)
    graphs: Any = SimpleNamespace(get=lambda graph_id: loaded, open=lambda graph_id, access: Shared(loaded))
    threads = PostgresThreads(Databases(worked.home.app), lambda graph_id: worked.serde)
    return Farm(
        graphs=graphs,
        executions=nothing,
        runs=worked.runs,
        threads=threads,
        stores=PostgresStores(Databases(worked.home.app), StoreConfig(), max_value_bytes=1000),
        healing=nothing,
        publisher=nothing,
        log=nothing,
        caches=nothing,
        keys=nothing,
        run_async=nothing,
    )


def one_after_the_other(worked: Line, thread_id: UUID, *inputs: Any) -> list[UUID]:
    """Two runs: the first to its end, of the second the start alone, whose checkpoint is the thread's head then."""
    new = [new_run(thread_id, input=given, create_thread=True) for given in inputs]
    for one in new:
        one.spec.config["configurable"].pop("checkpoint_id")
    first, second = (worked.runs.admit(worked.tenant, one) for one in new)
    assert second.run.status == "pending"
    queue, ended = list(first.ready), None
    while ended is None:
        more, ended = worked.execute(queue.pop(0))
        queue += more
    assert [message.run_id for message in queue] == [second.run.run_id]
    hand = worked.workers[0]
    claimed = hand.claim(queue[0])
    request = SegmentRequest(claimed.kind, claimed.run, claimed.call, claimed.attempt, {}, None)
    hand.commit(claimed, run_segment(worked.graph, request, saver=claimed.saver, sink=lambda chunk: None))
    return [first.run.run_id, second.run.run_id]


def test_a_run_is_answered_with_its_own_values_when_the_next_one_has_begun(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    worked, thread_id = Line(home, hands, acme, line()), uuid4()

    first, _ = one_after_the_other(worked, thread_id, {"seen": ["first"]}, {"seen": ["second"]})

    assert read_answer(farm_of(worked), acme, thread_id, first)["seen"] == ["first", "a", "b", "c"]


def test_a_run_that_asks_is_answered_with_its_question_when_the_next_one_has_begun(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    worked, thread_id = Line(home, hands, acme, asking()), uuid4()

    first, _ = one_after_the_other(worked, thread_id, {"seen": ["first"]}, {"seen": ["second"]})

    answer = read_answer(farm_of(worked), acme, thread_id, first)
    assert [one.value for one in answer["__interrupt__"]] == [{"why": "asked"}]
    assert answer["seen"] == ["first", "a", "beside"]  # what finished beside the question is told, too


def two_questions() -> "StateGraph[Any]":
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("human", lambda state: {"seen": [interrupt("one?"), interrupt("two?")]})
    builder.add_node("beside", lambda state: {"seen": ["beside"]})
    builder.add_edge(START, "human").add_edge(START, "beside")
    return builder


@pytest.mark.parametrize("build", [asking, two_questions])
def test_a_run_that_asked_is_answered_with_its_question_when_a_later_one_has_answered_it(
    home: Home, hands: Callable[..., Hand], acme: Tenant, build: Callable[[], "StateGraph[Any]"]
) -> None:
    """The later run's answers and results are kept at the very checkpoint that is the first one's end."""
    worked, thread_id = Line(home, hands, acme, build()), uuid4()
    first = worked.run({"seen": ["in"]}, thread_id).run_id
    told = read_answer(farm_of(worked), acme, thread_id, first)

    second = worked.run(Command(resume="answered", update={"seen": ["told"]}), thread_id).run_id

    assert "__interrupt__" in told
    assert read_answer(farm_of(worked), acme, thread_id, first) == told
    assert read_answer(farm_of(worked), acme, thread_id, second) != told


@pytest.mark.parametrize("goto", ["c", [Send("c", {}), "b"]], ids=["by name", "by Send"])
def test_a_run_that_asks_is_answered_with_what_nodes_wrote_that_its_command_called(
    home: Home, hands: Callable[..., Hand], acme: Tenant, goto: Any
) -> None:
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("q", lambda state: {"seen": [interrupt("q?")]}).add_edge(START, "q")
    for name in "bc":
        builder.add_node(name, lambda state, name=name: {"seen": [name]})
    worked, thread_id = Line(home, hands, acme, builder), uuid4()
    worked.run({"seen": ["in"]}, thread_id)

    ended = worked.run(Command(goto=goto, update={"seen": ["told"]}), thread_id)

    answer = read_answer(farm_of(worked), acme, thread_id, ended.run_id)
    stock = builder.compile(checkpointer=InMemorySaver())
    stock.invoke({"seen": ["in"]}, {"configurable": {"thread_id": "1"}})
    wanted = stock.invoke(Command(goto=goto, update={"seen": ["told"]}), {"configurable": {"thread_id": "1"}})
    assert answer["seen"] == wanted["seen"]
    assert [one.value for one in answer["__interrupt__"]] == ["q?"]


class Scratched(State, total=False):
    scratch: Annotated[str, UntrackedValue]


@pytest.mark.parametrize(
    ("told", "answered"),
    [
        ({"seen": ["in", "a"], "scratch": "kept by nobody"}, {"seen": ["in", "a"], "scratch": "kept by nobody"}),
        ({"seen": ["in"], "scratch": "of the state before"}, {"seen": ["in", "a"]}),
        ({"seen": ["in", "a"]}, {"seen": ["in", "a"]}),
    ],
    ids=["the last state", "a state before it", "nothing of it"],
)
def test_what_no_checkpoint_keeps_is_answered_from_the_stream_where_its_values_are_those_that_were_saved(
    home: Home, hands: Callable[..., Hand], acme: Tenant, told: Any, answered: Any
) -> None:
    builder: StateGraph[Any] = StateGraph(Scratched)
    builder.add_node("a", lambda state: {"seen": ["a"], "scratch": "kept by nobody"}).add_edge(START, "a")
    worked, thread_id = Line(home, hands, acme, builder), uuid4()
    ended = worked.run({"seen": ["in"]}, thread_id)

    answer = read_answer(farm_of(worked), acme, thread_id, ended.run_id, last_values=to_json(told))

    assert answer == answered


def test_a_run_that_was_cancelled_is_answered_with_what_it_had_finished(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    worked, thread_id = Line(home, hands, acme, line()), uuid4()
    worked.run({"seen": ["first"]}, thread_id)
    new = new_run(thread_id, input={"seen": ["second"]})
    worked.runs.admit(acme, new)

    worked.runs.cancel(acme, thread_id, new.run_id, rollback=False)
    worked.run({"seen": ["third"]}, thread_id)

    answer = read_answer(farm_of(worked), acme, thread_id, new.run_id)
    assert answer["seen"] == ["first", "a", "b", "c"]


def test_a_run_cancelled_before_the_threads_first_checkpoint_is_answered_with_nothing(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    worked, thread_id = Line(home, hands, acme, line()), uuid4()
    new = new_run(thread_id, input={"seen": ["first"]}, create_thread=True)
    worked.runs.admit(acme, new)

    worked.runs.cancel(acme, thread_id, new.run_id, rollback=False)
    worked.run({"seen": ["second"]}, thread_id)

    assert read_answer(farm_of(worked), acme, thread_id, new.run_id) == {}


def test_an_answer_that_was_pruned_is_not_another_runs(home: Home, hands: Callable[..., Hand], acme: Tenant) -> None:
    worked, thread_id = Line(home, hands, acme, line()), uuid4()
    first = worked.run({"seen": ["first"]}, thread_id).run_id
    second = worked.run({"seen": ["second"]}, thread_id).run_id

    TenantSaver(home.app, acme.id, worked.serde).prune([str(thread_id)])

    with pytest.raises(NotFound, match="Checkpoint"):
        read_answer(farm_of(worked), acme, thread_id, first)
    assert read_answer(farm_of(worked), acme, thread_id, second)["seen"][4:] == ["second", "a", "b", "c"]


def test_an_answer_that_is_undone_leaves_the_answers_before_it(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    """Both answers of a node are one row: the second is written over the first."""
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("human", lambda state: {"seen": [interrupt("one?"), interrupt("two?")]})
    builder.add_node("z", lambda state: {"seen": ["z"]})
    builder.add_edge(START, "human").add_edge("human", "z")
    worked, thread_id = Line(home, hands, acme, builder), uuid4()
    worked.run({"seen": []}, thread_id)
    worked.run(Command(resume="first"), thread_id)
    undone = new_run(thread_id, input=Command(resume="undone"))
    undone.spec.config["configurable"].pop("checkpoint_id")
    (start,) = worked.runs.admit(acme, undone).ready
    (to_z,), _ = worked.execute(start)
    assert home.query("SELECT node FROM farm.node_execution WHERE status = 'ready'") == [("z",)], to_z

    worked.runs.cancel(acme, thread_id, undone.run_id, rollback=True)
    ended = worked.run(Command(resume="second"), thread_id)

    assert read_answer(farm_of(worked), acme, thread_id, ended.run_id)["seen"] == ["first", "second", "z"]


class Counted(BaseModel):
    """A state that does not take any input."""

    count: int = 0


def test_a_thread_whose_model_refused_an_input_stays_readable(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    builder: StateGraph[Any] = StateGraph(Counted)
    builder.add_node("a", lambda state: {"count": state.count + 1})
    builder.add_edge(START, "a")
    worked, thread_id = Line(home, hands, acme, builder), uuid4()

    ended = worked.run({"count": "many"}, thread_id)

    assert (ended.status, ended.error and ended.error["error"]) == ("error", "ValidationError")
    state, farm = get_state(farm_of(worked), acme, thread_id), farm_of(worked)
    assert (state["values"], state["next"]) == ({"count": "many"}, ["a"])
    assert [one["next"] for one in get_history(farm, acme, thread_id)] == [["a"], ["__start__"]]
    assert thread_view(farm, acme, farm.threads.get(acme, thread_id))["values"] == {"count": "many"}


def test_a_state_that_was_changed_at_the_same_time_is_busy(
    home: Home, hands: Callable[..., Hand], acme: Tenant
) -> None:
    """A reducer is called between the reading of a state and its writing: here it is the other client."""
    others: list[Any] = []

    def add(before: list[str], more: list[str]) -> list[str]:
        if more == ["mine"] and others:
            others.pop()()
        return [*before, *more]

    class Meddled(TypedDict, total=False):
        seen: Annotated[list[str], add]

    builder: StateGraph[Any] = StateGraph(Meddled)
    builder.add_node("a", lambda state: {"seen": ["a"]}).add_edge(START, "a")
    worked, thread_id = Line(home, hands, acme, builder), uuid4()
    worked.run({"seen": ["in"]}, thread_id)
    farm = farm_of(worked)
    others.append(lambda: update_state(farm, acme, thread_id, values={"seen": ["theirs"]}, as_node="a"))

    with pytest.raises(ThreadBusy):
        update_state(farm, acme, thread_id, values={"seen": ["mine"]}, as_node="a")

    last = read_state(farm, acme, thread_id)
    assert last == ["in", "a", "theirs"]
    update_state(farm, acme, thread_id, values={"seen": ["mine"]}, as_node="a")
    assert read_state(farm, acme, thread_id) == [*last, "mine"]


def read_state(farm: Farm, tenant: Tenant, thread_id: UUID) -> Any:
    return get_state(farm, tenant, thread_id)["values"]["seen"]
