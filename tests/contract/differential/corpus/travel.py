"""The past of a thread: replay, fork, changes by hand."""

from langgraph.graph import START, StateGraph

from tests.contract.differential.building import Log, asks, line, says, says_line
from tests.contract.differential.scenario import AnyGraph, Run, Update, answer, resume, scenario

BEGIN = Run({"log": ["in"]})
THREE = says_line("a", "b", "c")


def _fan() -> AnyGraph:
    builder = StateGraph(Log)
    for name in ("a", "b", "c", "e"):
        builder.add_node(name, says(name))
    builder.add_edge(START, "a")
    for name in ("b", "c"):
        builder.add_edge("a", name)
    builder.add_edge(["b", "c"], "e")
    return builder.compile()


ASKING = line({"a": says("a"), "q": asks("q"), "e": says("e")})

SCENARIOS = [
    scenario("replay", THREE, BEGIN, Run(at=2), features="replay"),
    scenario("replay_from_the_start", THREE, BEGIN, Run(at=0), features="replay"),
    scenario("replay_from_the_end", THREE, BEGIN, Run(at=-1), features="replay"),
    scenario("replay_twice", THREE, BEGIN, Run(at=2), Run(at=3), features="replay"),
    scenario("replay_of_a_fan", _fan(), BEGIN, Run(at=2), features="replay joins", parallel=True),
    scenario("replay_of_a_join", _fan(), BEGIN, Run(at=3), features="replay joins", parallel=True),
    scenario("fork_with_input", THREE, BEGIN, Run({"log": ["other"]}, at=2), features="fork"),
    scenario("fork_by_update", THREE, BEGIN, Update({"log": ["by hand"]}, at=2), Run(), features="fork update_state"),
    scenario(
        "fork_by_update_as_node",
        THREE,
        BEGIN,
        Update({"log": ["by hand"]}, as_node="b", at=1),
        Run(),
        features="fork update_state as_node",
    ),
    scenario("update", THREE, BEGIN, Update({"log": ["by hand"]}), features="update_state"),
    scenario(
        "update_as_node",
        THREE,
        BEGIN,
        Update({"log": ["by hand"]}, as_node="a"),
        Run(),
        features="update_state as_node",
    ),
    scenario(
        "update_as_start",
        THREE,
        BEGIN,
        Update({"log": ["by hand"]}, as_node="__start__"),
        Run(),
        features="update_state as_node",
    ),
    scenario(
        "update_as_end",
        THREE,
        Run({"log": []}, interrupt_before=("b",)),
        Update(None, as_node="__end__"),
        Run(),
        features="update_state as_node breakpoints",
    ),
    scenario(
        "update_as_input",
        THREE,
        Update({"log": ["first"]}, as_node="__input__"),
        Run(),
        features="update_state as_node",
    ),
    scenario(
        "update_as_copy",
        THREE,
        BEGIN,
        Update(None, as_node="__copy__", at=2),
        Run(),
        features="update_state as_node fork",
    ),
    scenario("update_first", THREE, Update({"log": ["first"]}, as_node="a"), Run(), features="update_state as_node"),
    scenario(
        "update_of_unknown_node",
        THREE,
        BEGIN,
        Update({"log": ["x"]}, as_node="nobody"),
        features="update_state refused",
    ),
    scenario(
        "update_that_is_ambiguous",
        _fan(),
        BEGIN,
        Update({"log": ["x"]}, at=3),
        features="update_state refused joins",
        parallel=True,
    ),
    scenario(
        "update_a_question",
        ASKING,
        BEGIN,
        Update({"log": ["by hand"]}),
        resume("yes"),
        features="update_state interrupts",
    ),
    scenario(
        "update_past_a_question",
        ASKING,
        BEGIN,
        Update({"log": ["instead"]}, as_node="q"),
        Run(),
        features="update_state as_node interrupts",
    ),
    scenario(
        "fork_of_a_question", ASKING, BEGIN, resume("yes"), Run(at=2), resume("no"), features="fork interrupts replay"
    ),
    scenario(
        "fork_of_a_question_by_update",
        ASKING,
        BEGIN,
        resume("yes"),
        Update({"log": ["other"]}, at=2),
        Run(),
        answer({"q?": "no"}),
        features="fork interrupts update_state resume_map",
    ),
    scenario("answer_in_the_past", ASKING, BEGIN, resume("yes"), resume("no", at=2), features="fork interrupts replay"),
]
