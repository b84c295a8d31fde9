"""What LangGraph's own tests do not ask: each test runs by stock LangGraph and by the engine, and both must pass."""

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.func import task
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, Command, interrupt
from pydantic import BaseModel, ValidationError

from agentfarm.testing.graphs import KNOWN, Known

from .conftest import CONFIG, Bench

MakeBench = Callable[..., Bench]


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]
    n: int


class Decision(BaseModel):
    approved: bool


def line(*nodes: tuple[str, Any]) -> Any:
    builder = StateGraph(State)
    for i, (name, node) in enumerate(nodes):
        builder.add_node(name, node)
        builder.add_edge(nodes[i - 1][0] if i else START, name)
    return builder.compile()


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_a_known_graph_gives_its_known_answer(bench: MakeBench, known: Known) -> None:
    run = bench(known.graph)

    run.run(known.input)
    if known.answers:
        asked = run.questions()
        assert asked.keys() == known.answers.keys()
        run.run(Command(resume={asked[question]: answer for question, answer in known.answers.items()}))

    assert run.state().values == known.output
    assert run.state().next == ()


@pytest.mark.parametrize("known", [k for n, k in KNOWN.items() if n != "flaky"], ids=[n for n in KNOWN if n != "flaky"])
@pytest.mark.parametrize("nested", [False, True])
def test_chunks_and_history_are_those_of_stock(known: Known, nested: bool) -> None:
    modes = ["values", "updates", "custom", "messages"]
    stock, engine = (Bench(known.graph, by=by, nested=nested, stream_mode=modes) for by in ("stock", "engine"))
    for run in (stock, engine):
        run.run(known.input)
        if known.answers:
            ids = run.questions()
            run.run(Command(resume={ids[question]: answer for question, answer in known.answers.items()}))

    assert sorted(map(repr, without_ids(engine.chunks))) == sorted(map(repr, without_ids(stock.chunks)))
    if not stock.loaded.is_async:
        assert engine.history() == stock.history()


def without_ids(chunks: list[Any]) -> list[Any]:
    return [(mode, [i.value for i in p["__interrupt__"]] if "__interrupt__" in (p or ()) else p) for mode, p in chunks]


def test_an_answer_without_an_id_is_for_one_task_of_a_node_alone(bench: MakeBench) -> None:
    @task
    def ask(question: str) -> str:
        return f"{question}: {interrupt(question)}"

    run = bench(line(("asks", lambda s: {"log": [ask("one").result(), ask("two").result()]})))

    run.run({"log": []})
    run.run(Command(resume="yes"))
    assert list(run.questions()) == ["two"]
    run.run(Command(resume="no"))

    assert run.state().values == {"log": ["one: yes", "two: no"]}


def test_a_subgraph_whose_last_nodes_change_nothing_still_has_its_result(bench: MakeBench) -> None:
    sub = line(("x", lambda s: {"log": ["x"]}), ("y", lambda s: None), ("z", lambda s: None))
    run = bench(line(("sub", sub), ("end", lambda s: {"n": len(s["log"])})))

    assert run.run({"log": ["in"]}) == [{"sub": {"log": ["in", "x"]}}, {"end": {"n": 3}}]


def test_one_answer_is_for_one_question_of_a_subgraph(bench: MakeBench) -> None:
    """The answer stays at the outer checkpoint while the subgraph goes on: its next superstep must not get it again."""
    sub = line(("x", lambda s: {"log": [interrupt("x?")]}), ("y", lambda s: {"log": [interrupt("y?")]}))
    run = bench(line(("sub", sub)))

    run.run({"log": []})
    assert list(run.questions()) == ["x?"]
    run.run(Command(resume="1"))
    assert list(run.questions()) == ["y?"]
    run.run(Command(resume="2"))

    assert run.state().values["log"] == ["1", "2"]
    assert not run.state().next


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("in_subgraph", [False, True])
def test_an_answer_that_does_not_fit_cuts_no_sibling_off(
    bench: MakeBench, in_subgraph: bool, newest_first: bool
) -> None:
    sent: list[str] = []

    def check(state: State) -> State:
        interrupt("check?", response_schema=Decision)
        return {"log": ["checked"]}

    def send(state: State) -> State:
        interrupt("send?", response_schema=Decision)
        sent.append("email")
        return {"log": ["sent"]}

    builder = StateGraph(State)
    for name, node in (("check", check), ("send", send)):
        builder.add_node(name, node)
        builder.add_edge(START, name)
    both = builder.compile()
    run = bench(line(("sub", both)) if in_subgraph else both, newest_first=newest_first)
    run.run({"log": []})
    ids = run.questions()

    with pytest.raises(ValidationError, match="approved"):
        run.run(Command(resume={ids["check?"]: {"approved": "nope"}, ids["send?"]: {"approved": True}}))
    assert sent == ["email"]
    run.run(Command(resume={ids["check?"]: {"approved": True}}))

    assert sorted(run.state().values["log"]) == ["checked", "sent"]
    assert sent == ["email"]


def test_the_cache_is_asked_and_filled_under_one_key(bench: MakeBench) -> None:
    """LangGraph's default key pickles the input, and pickle does not write one string twice as it writes two equal."""
    ran: list[str] = []

    def twice(state: State) -> State:
        value = "a value"
        return {"log": [value, value]}

    def cached(state: State) -> State:
        ran.append("cached")
        return {"n": 1}

    builder = StateGraph(State)
    builder.add_node("a", twice)
    builder.add_node("b", cached, cache_policy=CachePolicy())
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    run = bench(builder.compile(cache=InMemoryCache()))

    for thread in ("1", "2"):
        run.run({"log": []}, {"configurable": {"thread_id": thread}})

    assert ran == ["cached"]


def test_a_breakpoint_stops_the_run_and_the_next_goes_past_it(bench: MakeBench) -> None:
    run = bench(KNOWN["line"].graph)

    run.run({"log": []}, interrupt_before=["b"])
    assert run.state().next == ("b",)
    run.run(None, interrupt_after=["b"])

    assert run.state().values["log"] == ["a", "b"]
    assert run.state().next == ("c",)


def test_a_run_from_an_older_checkpoint_forks_the_thread(bench: MakeBench) -> None:
    run = bench(KNOWN["diamond"].graph)
    run.run({"log": []})
    older = next(s for s in run.own.get_state_history(CONFIG) if s.next == ("b", "c", "d"))

    run.run(None, older.config)

    assert run.state().values == {"log": ["a", "b", "c", "d", "e"]}
    assert len([s for s in run.own.get_state_history(CONFIG) if s.next == ("e",)]) == 2


def test_the_error_of_a_node_is_the_run_s(bench: MakeBench) -> None:
    def fails(state: State) -> State:
        raise ValueError("no")

    run = bench(line(("a", lambda s: {"log": ["a"]}), ("b", fails)))

    with pytest.raises(ValueError, match=r"^no"):
        run.run({"log": []})

    assert run.state().values == {"log": ["a"]}
    assert run.state().next == ("b",)


def test_the_recursion_limit_counts_supersteps_and_not_messages(bench: MakeBench) -> None:
    run = bench(KNOWN["line"].graph)

    with pytest.raises(RecursionError, match="Recursion limit of 2"):
        run.run({"log": []}, {**CONFIG, "recursion_limit": 2})


def test_a_run_that_is_never_saved_before_its_end_is_executed_whole(bench: MakeBench) -> None:
    run = bench(KNOWN["diamond"].graph)

    run.run({"log": []}, durability="exit")

    assert run.state().values == {"log": ["a", "b", "c", "d", "e"]}
