"""What travels on the queue."""

import json
from uuid import UUID

import pytest

from agentfarm.ids import ZERO, new_id
from agentfarm.messages import ExecuteNode, Malformed, parse_message, render_message


def message(**changed: object) -> ExecuteNode:
    ids = {"tenant_id": new_id(), "run_id": new_id(), "checkpoint_id": new_id(), "execution_id": new_id()}
    return ExecuteNode(**{"home": "main", **ids, **changed})  # type: ignore[arg-type]


def test_a_message_comes_back_from_json_as_it_was() -> None:
    sent = message(graph_id="agent", node="model", queue="io")

    received = parse_message(json.loads(json.dumps(render_message(sent))))

    assert received == message(
        tenant_id=sent.tenant_id,
        run_id=sent.run_id,
        checkpoint_id=sent.checkpoint_id,
        execution_id=sent.execution_id,
    )


def test_a_message_holds_ids_and_nothing_else() -> None:
    body = render_message(message(graph_id="agent", node="model"))

    ids = {key: value for key, value in body.items() if key not in ("v", "home")}

    assert all(UUID(hex=str(value)) for value in ids.values())
    assert set(body) == {"v", "tenant", "home", "run", "checkpoint", "execution"}


def test_the_kind_of_a_message_shows_in_its_ids() -> None:
    run_id = new_id()

    assert message(run_id=run_id, execution_id=run_id, checkpoint_id=ZERO).kind == "start"
    assert message().kind == "node"
    assert message(execution_id=ZERO).kind == "advance"


def test_flower_sees_graph_and_node() -> None:
    assert message(graph_id="agent", node="model").shadow == "agent.model"
    assert message(graph_id="agent", execution_id=ZERO).shadow == "agent.advance"


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {**render_message(message()), "v": 2},
        {**render_message(message()), "run": "../../etc"},
        {**render_message(message()), "tenant": 7},
        {**render_message(message()), "home": None},
        {"__type__": "evil", "__value__": 1},
    ],
    ids=["null", "list", "text", "empty", "of the future", "a path", "a number", "no home", "a constructor"],
)
def test_what_is_no_message_is_refused_by_name(body: object) -> None:
    with pytest.raises(Malformed, match="cannot be read"):
        parse_message(body)
