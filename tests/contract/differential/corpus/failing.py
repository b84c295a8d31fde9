"""Nodes that fail: for good, until a retry, in time, with a handler, beside others; limits; and going on afterwards."""

import asyncio
import operator
from datetime import timedelta
from typing import Annotated, Any, Literal, TypedDict, cast

from langgraph.errors import GraphRecursionError, NodeError
from langgraph.graph import START, StateGraph
from langgraph.managed import IsLastStep, RemainingSteps
from langgraph.runtime import Runtime
from langgraph.types import Command, RetryPolicy, Send, TimeoutPolicy

from tests.contract.differential.building import Log, line, says, says_line
from tests.contract.differential.scenario import AnyGraph, Run, Update, scenario

BEGIN = Run({"log": []})


class Flaked(Exception):
    """What the flaky nodes raise in their first attempts."""


def fails(state: Log) -> Log:
    raise ValueError(f"failed after {state['log']}")


async def fails_later(state: Log) -> Log:
    raise KeyError("later")


def fails_until_told(state: Log) -> Log:
    if "now" not in state["log"]:
        raise Flaked("not yet")
    return {"log": ["went well"]}


def _flaky(attempts: int) -> Any:
    def node(state: Log, runtime: Runtime[None]) -> Log:
        info = runtime.execution_info
        if info is None or info.node_attempt < attempts:
            raise Flaked(f"attempt {info.node_attempt if info else 0}")
        return {"log": ["went well"]}

    return node


def _retried(node: Any, *, attempts: int = 3, **policy: Any) -> AnyGraph:
    chosen = RetryPolicy(max_attempts=attempts, initial_interval=0.001, jitter=False, retry_on=Flaked, **policy)
    builder = StateGraph(Log)
    builder.add_node("a", says("a"))
    builder.add_node("flaky", node, retry_policy=chosen)
    builder.add_node("e", says("e"))
    builder.add_edge(START, "a")
    builder.add_edge("a", "flaky")
    builder.add_edge("flaky", "e")
    return builder.compile()


def _handled(*, goto: bool = False, flaky: bool = False, handler_fails: bool = False) -> AnyGraph:
    def handle(state: Log, error: NodeError) -> Any:
        if handler_fails:
            raise RuntimeError("the handler failed as well")
        told = f"{error.node}: {type(error.error).__name__}"
        return Command(goto="e", update={"log": [told]}) if goto else {"log": [told]}

    builder = StateGraph(Log)
    builder.add_node("a", says("a"))
    policy = RetryPolicy(max_attempts=2, initial_interval=0.001, jitter=False, retry_on=Flaked)
    options: dict[str, Any] = {"retry_policy": policy} if flaky else {}
    builder.add_node("bad", _flaky(5) if flaky else fails, error_handler=cast("Any", handle), **options)
    builder.add_node("next", says("next"))
    builder.add_node("e", says("e"))
    builder.add_edge(START, "a")
    builder.add_edge("a", "bad")
    builder.add_edge("bad", "next")
    builder.add_edge("next", "e")
    return builder.compile()


def _timed_out() -> AnyGraph:
    async def slow(state: Log) -> Log:
        await asyncio.Event().wait()
        return {"log": ["never"]}

    builder = StateGraph(Log)
    builder.add_node("a", says("a"))
    builder.add_node("slow", slow, timeout=TimeoutPolicy(run_timeout=timedelta(seconds=0.05)))
    builder.add_edge(START, "a")
    builder.add_edge("a", "slow")
    return builder.compile()


def _beside_others(failing: Any) -> AnyGraph:
    builder = StateGraph(Log)
    builder.add_node("a", says("a"))
    builder.add_node("good", says("good"))
    builder.add_node("bad", failing)
    builder.add_node("e", says("e"))
    builder.add_edge(START, "a")
    for name in ("good", "bad"):
        builder.add_edge("a", name)
    builder.add_edge(["good", "bad"], "e")
    return builder.compile()


def _endless() -> AnyGraph:
    builder = StateGraph(Log)
    builder.add_node("a", says("a"))
    builder.add_node("b", says("b"))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", "a")
    return builder.compile()


class Managed(TypedDict):
    log: Annotated[list[Any], operator.add]
    left: RemainingSteps
    is_last: IsLastStep


def _managed() -> AnyGraph:
    def node(state: Managed) -> Any:
        return {"log": [[state["left"], state["is_last"]]]}

    def again(state: Managed) -> Literal["node", "__end__"]:
        return "node" if state["left"] > 2 else "__end__"

    builder = StateGraph(Managed)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_conditional_edges("node", again)
    return builder.compile()


def _bad_update() -> AnyGraph:
    """Two nodes write to a channel that takes one value a superstep."""

    class Single(TypedDict, total=False):
        value: str

    def node(state: Single) -> Single:
        return {"value": "x"}

    builder = StateGraph(Single)
    for name in ("one", "two"):
        builder.add_node(name, node)
        builder.add_edge(START, name)
    return builder.compile()


def _fails_in_reducer() -> AnyGraph:
    class Numbers(TypedDict, total=False):
        total: Annotated[int, operator.add]

    def node(state: Numbers) -> Any:
        return {"total": "not a number"}

    return line({"node": node}, Numbers)


class Item(TypedDict):
    number: int


def _fan_with_a_failing_one() -> AnyGraph:
    def split(state: Log) -> list[Send]:
        return [Send("item", {"number": number}) for number in range(4)]

    def item(sent: Item, runtime: Runtime[None]) -> Log:
        if sent["number"] == 3 and runtime.execution_info and runtime.execution_info.node_attempt < 2:
            raise Flaked("number 3")
        return {"log": [sent["number"]]}

    builder = StateGraph(Log)
    builder.add_node(
        "item",
        cast("Any", item),
        input_schema=Item,
        retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.001, jitter=False, retry_on=Flaked),
    )
    builder.add_conditional_edges(START, split, ["item"])
    return builder.compile()


def _raises_recursion(state: Log) -> Log:
    raise GraphRecursionError("of its own")


SCENARIOS = [
    scenario("fails", line({"a": says("a"), "bad": fails, "e": says("e")}), BEGIN, features="failing"),
    scenario("fails_async", line({"a": says("a"), "bad": fails_later}), BEGIN, features="failing async"),
    scenario("fails_first", line({"bad": fails, "e": says("e")}), BEGIN, features="failing"),
    scenario(
        "fails_and_goes_on",
        line({"a": says("a"), "bad": fails_until_told, "e": says("e")}),
        BEGIN,
        Run(),
        features="failing",
    ),
    scenario(
        "fails_then_updated",
        line({"a": says("a"), "bad": fails_until_told, "e": says("e")}),
        BEGIN,
        Update({"log": ["now"]}, as_node="a"),
        Run(),
        features="failing update_state",
    ),
    scenario(
        "fails_then_new_input",
        line({"a": says("a"), "bad": fails_until_told, "e": says("e")}),
        BEGIN,
        Run({"log": ["now"]}),
        features="failing turns",
    ),
    scenario(
        "fails_in_a_child",
        line({"before": says("before"), "child": line({"x": says("x"), "bad": fails})}),
        BEGIN,
        features="failing subgraphs",
    ),
    scenario("fails_in_a_reducer", _fails_in_reducer(), Run({"total": 1}), features="failing"),
    scenario(
        "fails_by_two_updates", _bad_update(), Run({"value": "in"}), features="failing invalid_update", parallel=True
    ),
    scenario("fails_with_an_error_of_langgraphs", line({"bad": _raises_recursion}), BEGIN, features="failing"),
    scenario(
        "fails_without_save",
        line({"a": says("a"), "bad": fails}),
        Run({"log": []}, durability="exit"),
        features="failing durability_exit inline",
    ),
    scenario("retried", _retried(_flaky(3)), BEGIN, features="retry_policy"),
    scenario("retried_in_vain", _retried(_flaky(9)), BEGIN, features="retry_policy failing"),
    scenario("retried_once_only", _retried(fails), BEGIN, features="retry_policy failing"),
    scenario("retried_in_a_fan_out", _fan_with_a_failing_one(), BEGIN, features="retry_policy send", parallel=True),
    scenario("handled", _handled(), BEGIN, features="error_handler"),
    scenario("handled_elsewhere", _handled(goto=True), BEGIN, features="error_handler command"),
    scenario("handled_after_retries", _handled(flaky=True), BEGIN, features="error_handler retry_policy"),
    scenario("handler_fails", _handled(handler_fails=True), BEGIN, features="error_handler failing"),
    scenario("timed_out", _timed_out(), BEGIN, features="timeout_policy failing async"),
    scenario(
        "recursion_limit",
        _endless(),
        Run({"log": []}, config={"recursion_limit": 4}),
        features="recursion_limit failing",
    ),
    scenario(
        "recursion_limit_and_on",
        _endless(),
        Run({"log": []}, config={"recursion_limit": 2}),
        Run(config={"recursion_limit": 3}),
        features="recursion_limit failing",
    ),
    scenario(
        "recursion_limit_just_enough",
        says_line("a", "b", "c"),
        Run({"log": []}, config={"recursion_limit": 3}),
        features="recursion_limit",
    ),
    scenario(
        "managed",
        _managed(),
        Run({"log": []}, config={"recursion_limit": 6}),
        features="managed_values recursion_limit",
    ),
    scenario("no_input", says_line("a"), Run(None), features="failing empty_input"),
    scenario("input_of_unknown_keys", says_line("a"), Run({"nobody": 1}), features="failing empty_input"),
]
