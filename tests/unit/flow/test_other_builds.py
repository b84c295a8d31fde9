"""When a worker looks whether its build of a graph can go on with a run, and when it does not."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from agentfarm.engine.graph_loading import describe_graph
from agentfarm.engine.steps import RunSpec
from agentfarm.flow.other_builds import is_of_another_build


class State(TypedDict, total=False):
    text: str


LOADED = describe_graph("g", StateGraph(State).add_node("a", lambda state: {}).add_edge(START, "a").compile())


@pytest.mark.parametrize(
    ("fingerprint", "is_made", "is_another"),
    [
        (LOADED.fingerprint, False, False),
        ("of another build", False, True),
        ("", False, False),  # a run of a time before runs knew
        ("of another build", True, False),  # a factory may make another graph to be read, which the door has seen
    ],
)
def test_a_run_is_of_another_build_where_it_says_so_and_no_factory_made_the_graph(
    fingerprint: str, is_made: bool, is_another: bool
) -> None:
    run = RunSpec("run", "thread", "g", None, {}, {}, fingerprint=fingerprint)

    told = is_of_another_build(replace(LOADED, is_made=is_made), cast("Any", SimpleNamespace(run=run)))

    assert told is is_another
