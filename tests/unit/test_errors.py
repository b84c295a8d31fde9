"""The tree of errors."""

import ast
import pickle
import re
from pathlib import Path

import pytest

from agentfarm import errors
from agentfarm.errors import AgentFarmError

PACKAGE = Path(errors.__file__).parent


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
    drawn = {found[1]: found[2] for found in re.finditer(r"── (\w+)(?:.*?([\w/]+\.py))?", errors.__doc__ or "")}

    assert drawn == {name: None if place == "errors.py" else place for name, place in error_classes().items()}


def error_classes() -> dict[str, str]:
    """{name: file below agentfarm} of every class below AgentFarmError; found by reading, so that none is forgotten."""
    classes = [
        (node.name, {base.id for base in node.bases if isinstance(base, ast.Name)}, str(file.relative_to(PACKAGE)))
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    found: dict[str, str] = {}
    while more := {
        name: file for name, bases, file in classes if bases & {"AgentFarmError", *found} and name not in found
    }:
        found |= more
    return found


def test_facts_are_kept_beside_the_sentence() -> None:
    error = errors.LeaseLost(execution_id="e1")

    assert error.facts == {"execution_id": "e1"}
    assert "e1 was taken over" in str(error)
