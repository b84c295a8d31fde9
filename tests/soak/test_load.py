"""The users of a soak notice a wrong answer."""

import asyncio
import copy

from tests.chaos import oracle
from tests.chaos.load import Ask
from tests.soak.load import differences

ASKS = [
    Ask("u1.1", "demo", "approval", "t", input={"asked": "hello"}),
    Ask("u1.2", "demo", "approval", "t", resume="yes hello"),
]


def test_an_answer_as_stock_langgraph_gives_it_is_no_difference() -> None:
    state = asyncio.run(oracle.answers(ASKS))[-1]

    assert asyncio.run(differences("t", ASKS, ["interrupted", "success"], state)) == []


def test_a_node_committed_twice_and_a_run_that_failed_are_told() -> None:
    state = copy.deepcopy(asyncio.run(oracle.answers(ASKS))[-1])
    state["log"].append(state["log"][-1])

    found = asyncio.run(differences("t", ASKS, ["interrupted", "error"], state))

    assert len(found) == 2
    assert "ended as error, not as success" in found[0]
    assert "stock LangGraph's" in found[1]
