"""Questions to a human: one, several at once, in loops, in fan-outs, breakpoints; answered together or one by one."""

import operator
from typing import Annotated, Any, Literal, TypedDict, cast

from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from tests.contract.differential.building import Log, asks, line, says, says_line
from tests.contract.differential.scenario import AnyGraph, Run, Update, answer, resume, scenario

BEGIN = Run({"log": []})


def _asks_later(name: str) -> Any:
    async def node(state: Log) -> Log:
        return {"log": [f"{name}: {interrupt({'question': f'{name}?', 'state': state})}"]}

    return node


def _beside_each_other(*, others: tuple[str, ...] = ("n",), later: bool = False) -> AnyGraph:
    ask = _asks_later if later else asks
    builder = StateGraph(Log)
    builder.add_node("a", says("a"))
    nodes = {"q1": ask("q1"), "q2": ask("q2"), **{name: says(name) for name in others}}
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge("a", name)
    builder.add_node("e", says("e"))
    builder.add_edge(list(nodes), "e")
    builder.add_edge(START, "a")
    return builder.compile()


def _two_in_one_node() -> AnyGraph:
    def node(state: Log) -> Log:
        first = interrupt("first?")
        second = interrupt(f"second after {first}?")
        return {"log": [first, second]}

    return line({"a": says("a"), "q": node, "e": says("e")})


class Count(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


def _in_a_loop() -> AnyGraph:
    def again(state: Log) -> Literal["q", "e"]:
        return "e" if state["log"][-1] == "q: stop" else "q"

    builder = StateGraph(Log)
    builder.add_node("q", asks("q"))
    builder.add_node("e", says("e"))
    builder.add_edge(START, "q")
    builder.add_conditional_edges("q", again)
    return builder.compile()


class Item(TypedDict):
    number: int


def _in_a_fan_out(width: int) -> AnyGraph:
    def split(state: Log) -> list[Send]:
        return [Send("item", {"number": number}) for number in range(width)]

    def item(sent: Item) -> Log:
        if sent["number"] % 2:
            return {"log": [f"item {sent['number']}"]}
        return {"log": [f"item {sent['number']}: {interrupt(str(sent['number']))}"]}

    builder = StateGraph(Log)
    builder.add_node("a", says("a"))
    builder.add_node("item", cast("Any", item), input_schema=Item)
    builder.add_node("e", says("e"))
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", split, ["item"])
    builder.add_edge("item", "e")
    return builder.compile()


def _asks_beside_a_failing_one() -> AnyGraph:
    def fails(state: Log) -> Log:
        raise ValueError("this node fails")

    builder = StateGraph(Log)
    builder.add_node("q", asks("q"))
    builder.add_node("n", says("n"))
    builder.add_node("f", fails)
    builder.add_edge(START, "n")
    builder.add_edge("n", "q")
    builder.add_edge("q", "f")
    return builder.compile()


def _asks_and_goes() -> AnyGraph:
    def q(state: Log) -> Command[Literal["b", "c"]]:
        told = interrupt({"question": "where?", "options": ["b", "c"]})
        return Command(goto=told, update={"log": [f"to {told}"]})

    builder = StateGraph(Log)
    builder.add_node("q", q)
    builder.add_node("b", says("b"))
    builder.add_node("c", says("c"))
    builder.add_edge(START, "q")
    return builder.compile()


def _stops(**compile: Any) -> AnyGraph:
    return says_line("a", "b", "c", compile=compile)


def _stops_in_a_fan() -> AnyGraph:
    builder = StateGraph(Log)
    for name in ("a", "b", "c", "e"):
        builder.add_node(name, says(name))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("a", "c")
    builder.add_edge(["b", "c"], "e")
    return builder.compile()


SCENARIOS = [
    scenario(
        "question", line({"a": says("a"), "q": asks("q"), "e": says("e")}), BEGIN, resume("yes"), features="interrupts"
    ),
    scenario(
        "question_async",
        line({"a": says("a"), "q": _asks_later("q"), "e": says("e")}),
        BEGIN,
        resume({"ok": True, "why": ["x"]}),
        features="interrupts async",
    ),
    scenario(
        "question_unanswered",
        line({"q": asks("q")}),
        BEGIN,
        Run(),
        features="interrupts",
    ),
    scenario(
        "question_answered_with_false",
        line({"q": asks("q"), "e": says("e")}),
        BEGIN,
        resume(False),
        features="interrupts",
    ),
    scenario(
        "question_and_new_input",
        line({"q": asks("q"), "e": says("e")}),
        BEGIN,
        Run({"log": ["new"]}),
        resume("x"),
        features="interrupts turns",
    ),
    scenario(
        "questions_together",
        _beside_each_other(),
        BEGIN,
        answer({"q1?": "yes", "q2?": "no"}),
        features="interrupts several_interrupts resume_map",
        parallel=True,
    ),
    scenario(
        "questions_one_by_one",
        _beside_each_other(),
        BEGIN,
        answer({"q2?": "no"}),
        answer({"q1?": "yes"}),
        features="interrupts several_interrupts resume_map",
        parallel=True,
    ),
    scenario(
        "questions_async",
        _beside_each_other(later=True, others=()),
        BEGIN,
        answer({"q1?": "yes"}),
        answer({"q2?": "no"}),
        features="interrupts several_interrupts resume_map async",
        parallel=True,
    ),
    scenario(
        "questions_together_without_others",
        _beside_each_other(others=()),
        BEGIN,
        answer({"q1?": 1, "q2?": 2}),
        features="interrupts several_interrupts resume_map",
        parallel=True,
    ),
    scenario(
        "two_questions_in_one_node",
        _two_in_one_node(),
        BEGIN,
        resume("1"),
        resume("2"),
        features="interrupts several_in_a_node",
    ),
    scenario(
        "question_in_a_loop",
        _in_a_loop(),
        BEGIN,
        resume("more"),
        resume("and more"),
        resume("stop"),
        features="interrupts loops",
    ),
    scenario(
        "questions_in_a_fan_out",
        _in_a_fan_out(4),
        BEGIN,
        answer({"0": "a", "2": "b"}),
        features="interrupts send several_interrupts resume_map",
        parallel=True,
    ),
    scenario(
        "questions_in_a_fan_out_one_by_one",
        _in_a_fan_out(5),
        BEGIN,
        answer({"2": "b"}),
        answer({"0": "a"}),
        answer({"4": "c"}),
        features="interrupts send several_interrupts resume_map",
        parallel=True,
    ),
    scenario("question_then_failure", _asks_beside_a_failing_one(), BEGIN, resume("x"), features="interrupts failing"),
    scenario("question_where_to_go", _asks_and_goes(), BEGIN, resume("c"), features="interrupts command"),
    scenario(
        "question_without_save",
        line({"a": says("a"), "q": asks("q"), "e": says("e")}),
        Run({"log": []}, durability="exit"),
        resume("yes", durability="exit"),
        features="interrupts durability_exit inline",
    ),
    scenario(
        "question_sync_durability",
        line({"a": says("a"), "q": asks("q")}),
        Run({"log": []}, durability="sync"),
        resume("yes", durability="sync"),
        features="interrupts durability_sync",
    ),
    scenario(
        "stop_before",
        says_line("a", "b", "c"),
        Run({"log": []}, interrupt_before=("b",)),
        Run(),
        features="breakpoints",
    ),
    scenario(
        "stop_after", says_line("a", "b", "c"), Run({"log": []}, interrupt_after=("b",)), Run(), features="breakpoints"
    ),
    scenario(
        "stop_everywhere",
        says_line("a", "b", "c"),
        Run({"log": []}, interrupt_before="*"),
        Run(interrupt_before="*"),
        Run(interrupt_after="*"),
        Run(),
        features="breakpoints",
    ),
    scenario(
        "stop_before_compiled",
        _stops(interrupt_before=["b"]),
        BEGIN,
        Run(),
        features="breakpoints breakpoints_compiled",
    ),
    scenario(
        "stop_after_compiled",
        _stops(interrupt_after=["a", "b"]),
        BEGIN,
        Run(),
        Run(),
        features="breakpoints breakpoints_compiled",
    ),
    scenario(
        "stop_compiled_and_asked",
        _stops(interrupt_after=["a"]),
        Run({"log": []}, interrupt_before=("c",)),
        Run(interrupt_before=("c",)),
        Run(),
        features="breakpoints breakpoints_compiled",
    ),
    scenario(
        "stop_in_a_fan",
        _stops_in_a_fan(),
        Run({"log": []}, interrupt_before=("c",)),
        Run(),
        features="breakpoints joins",
        parallel=True,
    ),
    scenario(
        "stop_after_in_a_fan",
        _stops_in_a_fan(),
        Run({"log": []}, interrupt_after=("c",)),
        Run(),
        features="breakpoints joins",
        parallel=True,
    ),
    scenario(
        "stop_and_update",
        says_line("a", "b", "c"),
        Run({"log": []}, interrupt_before=("c",)),
        Update({"log": ["by hand"]}),
        Run(),
        features="breakpoints update_state",
    ),
    scenario(
        "stop_and_new_input",
        says_line("a", "b", "c"),
        Run({"log": []}, interrupt_before=("c",)),
        Run({"log": ["new"]}),
        features="breakpoints turns",
    ),
    scenario(
        "stop_before_a_question",
        line({"a": says("a"), "q": asks("q"), "e": says("e")}),
        Run({"log": []}, interrupt_before=("q",)),
        Run(),
        resume("yes"),
        features="breakpoints interrupts",
    ),
]
