"""The tree of errors."""

import pickle

import pytest

from agentfarm import errors
from agentfarm.errors import AgentFarmError


def all_errors() -> list[type[AgentFarmError]]:
    todo, found = [AgentFarmError], []
    while todo:
        one = todo.pop()
        found.append(one)
        todo += one.__subclasses__()
    return sorted(set(found), key=lambda one: one.__name__)


@pytest.mark.parametrize("error", all_errors(), ids=lambda one: one.__name__)
def test_every_error_survives_the_way_between_processes(error: type[AgentFarmError]) -> None:
    raised = error("what happened, why and what to do")

    arrived = pickle.loads(pickle.dumps(raised))

    assert type(arrived) is error
    assert str(arrived) == str(raised)


def test_no_two_errors_share_a_code() -> None:
    codes = [one.code for one in all_errors() if "code" in vars(one)]

    assert len(codes) == len(set(codes))


def test_the_tree_on_top_of_the_module_is_the_tree() -> None:
    drawn = errors.__doc__ or ""

    missing = [
        one.__name__ for one in all_errors() if one.__module__ == "agentfarm.errors" and one.__name__ not in drawn
    ]

    assert missing == []


def test_facts_are_kept_beside_the_sentence() -> None:
    error = errors.LeaseLost(execution_id="e1")

    assert error.facts == {"execution_id": "e1"}
    assert "e1 was taken over" in str(error)
