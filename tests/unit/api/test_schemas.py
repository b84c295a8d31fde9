"""Run requests as clients send them: null is absent, and nothing is dropped in silence."""

from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from agentfarm.api.schemas import (
    AssistantSearch,
    HistoryRequest,
    RunCreate,
    RunCreateStateless,
    StateUpdate,
    ThreadCreate,
    ThreadSearch,
)
from agentfarm.errors import InvalidInput, UnsupportedField
from agentfarm.run_options import RunAhead, RunChoices

#: What the Python SDK sends when nothing but an assistant is given, with nulls where it leaves out nothing.
FROM_AN_SDK = {
    "assistant_id": "agent",
    "input": None,
    "command": None,
    "config": None,
    "context": None,
    "metadata": None,
    "checkpoint": None,
    "checkpoint_id": None,
    "interrupt_before": None,
    "interrupt_after": None,
    "webhook": None,
    "feedback_keys": None,
    "after_seconds": None,
    "langsmith_tracer": None,
    "stream_mode": None,
    "stream_subgraphs": None,
    "stream_resumable": None,
    "multitask_strategy": None,
    "if_not_exists": None,
    "on_disconnect": None,
    "durability": None,
    "checkpoint_during": None,
}


def test_null_means_not_given() -> None:
    run = RunCreate.model_validate(FROM_AN_SDK).to_run_request(streamed=False)

    assert run == RunCreate(assistant_id="agent").to_run_request(streamed=False)
    assert run.multitask_strategy == "enqueue"
    assert run.if_not_exists == "reject"


@pytest.mark.parametrize("field", ["webhook", "feedback_keys", "after_seconds", "langsmith_tracer", "strict_resume"])
def test_what_is_not_done_is_refused_by_name(field: str) -> None:
    with pytest.raises(UnsupportedField, match=field):
        RunCreate.model_validate({"assistant_id": "agent", field: "x"})


@pytest.mark.parametrize(
    "nothing",
    [{"webhook": ""}, {"feedback_keys": []}, {"after_seconds": 0}, {"after_seconds": 0.0}, {"strict_resume": False}],
)
def test_what_asks_for_nothing_passes(nothing: dict[str, Any]) -> None:
    RunCreate.model_validate({"assistant_id": "agent", **nothing})


@pytest.mark.parametrize(
    ("model", "needed"),
    [
        (RunCreate, {"assistant_id": "agent"}),
        (RunCreateStateless, {"assistant_id": "agent"}),
        (ThreadSearch, {}),
        (AssistantSearch, {}),
        (StateUpdate, {}),
        (ThreadCreate, {}),
    ],
)
def test_an_unknown_field_is_refused_by_name(model: Any, needed: dict[str, str]) -> None:
    with pytest.raises(UnsupportedField, match="multitask_stratgy"):
        model.model_validate({**needed, "multitask_stratgy": "reject"})


def test_the_name_of_an_unknown_field_is_repeated_in_bounds() -> None:
    with pytest.raises(UnsupportedField) as refused:
        RunCreate.model_validate({"assistant_id": "agent", "<script>" + "x" * 5000: 1})

    assert len(str(refused.value)) < 250
    assert "<" not in str(refused.value)


def test_nulls_inside_of_values_stay() -> None:
    body = {
        "assistant_id": "agent",
        "input": {"a": None},
        "config": {"configurable": {"b": None}, "tags": None},
        "metadata": {"c": None},
        "context": {"d": None},
    }

    run = RunCreate.model_validate(body).to_run_request(streamed=True)

    assert run.input == {"a": None}
    assert run.config == {"configurable": {"b": None}}
    assert run.metadata == {"c": None}
    assert run.context == {"d": None}


@pytest.mark.parametrize("resume", [False, 0, "", [], {"id": None}, "yes"])
def test_any_answer_may_resume(resume: Any) -> None:
    run = RunCreate.model_validate({"assistant_id": "a", "command": {"resume": resume, "update": None}})

    assert run.to_run_request(streamed=False).command == {"resume": resume}


@pytest.mark.parametrize(
    ("goto", "read"),
    [
        ("node", "node"),
        (["a", "b"], ["a", "b"]),
        ({"node": "a", "input": {"x": None}}, {"node": "a", "input": {"x": None}}),
        ([{"node": "a"}, "b"], [{"node": "a", "input": None}, "b"]),
    ],
)
def test_goto_is_a_name_a_send_or_a_list_of_them(goto: Any, read: Any) -> None:
    run = RunCreate.model_validate({"assistant_id": "a", "command": {"goto": goto}})

    assert run.to_run_request(streamed=False).command == {"goto": read}


@pytest.mark.parametrize(
    ("given", "read"), [("values", ("values",)), (["values", "custom"], ("values", "custom")), (None, ())]
)
def test_stream_mode_is_one_or_several(given: Any, read: tuple[str, ...]) -> None:
    run = RunCreate.model_validate({"assistant_id": "a", "stream_mode": given})

    assert run.to_run_request(streamed=True).stream_mode == read


@pytest.mark.parametrize(("given", "read"), [(True, "async"), (False, "exit"), (None, None)])
def test_the_old_name_of_durability_is_understood(given: bool | None, read: str | None) -> None:
    run = RunCreate.model_validate({"assistant_id": "a", "checkpoint_during": given})

    assert run.to_run_request(streamed=False).durability == read


def test_a_checkpoint_is_an_object_an_id_or_both() -> None:
    one, other = uuid4(), uuid4()

    by_id = RunCreate.model_validate({"assistant_id": "a", "checkpoint_id": str(one)}).to_run_request(streamed=False)
    both = RunCreate.model_validate(
        {
            "assistant_id": "a",
            "checkpoint_id": str(one),
            "checkpoint": {"checkpoint_id": str(other), "checkpoint_ns": ""},
        }
    ).to_run_request(streamed=False)

    assert by_id.checkpoint == {"checkpoint_id": str(one)}
    assert both.checkpoint is not None
    assert both.checkpoint["checkpoint_id"] == str(one)


def test_a_run_without_a_thread_has_no_checkpoint() -> None:
    with pytest.raises(InvalidInput, match="checkpoint"):
        RunCreateStateless.model_validate({"assistant_id": "a", "checkpoint_id": str(uuid4())})


def test_a_run_without_a_thread_is_forgotten_unless_asked_otherwise() -> None:
    forgotten = RunCreateStateless(assistant_id="a").to_run_request(streamed=False)
    kept = RunCreateStateless(assistant_id="a", on_completion="keep").to_run_request(streamed=False)

    assert (forgotten.stateless, forgotten.on_completion) == (True, "delete")
    assert kept.on_completion == "keep"


@pytest.mark.parametrize(
    "config",
    [
        {"recursion_limit": 0},
        {"recursion_limit": "many"},
        {"tags": "one"},
        {"configurable": []},
        {"max_concurrency": -1},
    ],
)
def test_a_config_of_wrong_types_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RunCreate.model_validate({"assistant_id": "a", "config": config})


def test_before_is_read_as_every_client_sends_it() -> None:
    one = str(uuid4())

    for before in (one, {"checkpoint_id": one, "thread_id": one}, {"configurable": {"checkpoint_id": one}}):
        assert HistoryRequest.model_validate({"before": before}).before_place() == {"checkpoint_id": one}
    with pytest.raises(InvalidInput):
        HistoryRequest.model_validate({"before": {"thread_id": one}}).before_place()


def test_the_batch_of_the_javascript_sdk_is_understood() -> None:
    run = RunCreateStateless.model_validate({"assistantId": "a", "assistant_id": "a", "input": {}})

    assert run.assistant_id == "a"
    with pytest.raises(UnsupportedField, match="assistantId"):
        RunCreateStateless.model_validate({"assistantId": "b", "assistant_id": "a"})
    with pytest.raises(UnsupportedField, match="on_completion"):
        RunCreate.model_validate({"assistant_id": "a", "on_completion": "delete"})


# --------------------------------------------------------------------------- how a run is executed


def options(asked: Any) -> dict[str, Any]:
    return {"assistant_id": "agent", "config": {"tags": ["a"], "agentfarm": asked}}


@pytest.mark.parametrize(
    ("asked", "choices"),
    [
        (None, RunChoices()),
        ({}, RunChoices()),
        ({"run_ahead": None}, RunChoices()),
        ({"run_ahead": True}, RunChoices(run_ahead=True)),
        ({"run_ahead": False, "persistence": "postgres"}, RunChoices(False, "postgres")),
        ({"run_ahead": {"nodes": 3}}, RunChoices(RunAhead(nodes=3))),
        ({"run_ahead": {"nodes": 3, "seconds": 1}}, RunChoices(RunAhead(3, 1.0))),
        ({"run_ahead": {}}, RunChoices(RunAhead())),
    ],
    ids=str,
)
def test_how_a_run_is_executed_is_said_beside_its_config_and_not_in_it(asked: Any, choices: RunChoices) -> None:
    run = RunCreate.model_validate(options(asked)).to_run_request(streamed=False)

    assert run.choices == choices
    assert run.config == {"tags": ["a"]}


@pytest.mark.parametrize(
    "asked",
    [
        True,
        {"run_ahead": "yes"},
        {"run_ahead": 1},
        {"run_ahead": {"nodes": 0}},
        {"run_ahead": {"nodes": True}},
        {"run_ahead": {"nodes": 1001}},
        {"run_ahead": {"nodes": 1.5}},
        {"run_ahead": {"seconds": 0}},
        {"run_ahead": {"seconds": 61}},
        {"run_ahead": {"seconds": "1"}},
        {"persistence": "disk"},
        {"persistence": 1},
    ],
    ids=str,
)
def test_an_option_out_of_bounds_is_refused(asked: Any) -> None:
    with pytest.raises(ValidationError, match="agentfarm"):
        RunCreate.model_validate(options(asked))


@pytest.mark.parametrize(
    ("asked", "name"), [({"runahead": True}, "runahead"), ({"run_ahead": {"node": 1}}, "node")], ids=str
)
def test_an_option_that_is_none_is_refused_by_name(asked: Any, name: str) -> None:
    with pytest.raises(UnsupportedField, match=f"'{name}'"):
        RunCreate.model_validate(options(asked))
