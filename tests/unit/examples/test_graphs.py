"""examples/research, approval and twelve_steps over stock LangGraph, and the langgraph.json that serves them all."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel import Pregel
from langgraph.types import Command

from examples.approval.graph import graph as approval
from examples.research.graph import graph as research
from examples.twelve_steps.graph import NAMES, expected_digest
from examples.twelve_steps.graph import graph as twelve_steps

ROOT = Path(__file__).parents[3]
DESK = {"payee": "Ada", "purpose": "a desk", "amount_cents": 120_000}
THREAD: dict[str, Any] = {"configurable": {"thread_id": "thread"}}


@pytest.fixture
def office() -> Any:
    return approval.copy({"checkpointer": InMemorySaver()})


def test_every_section_is_read_by_a_node_execution_of_its_own() -> None:
    updates = list(research.stream({"title": "bill of rights"}, stream_mode="updates"))

    nodes = [node for update in updates for node in update]
    assert nodes == ["split", *["read_section"] * 10, "write_report"]


def test_the_report_says_where_the_question_is_answered() -> None:
    report = research.invoke({"title": "bill of rights", "question": "trial by jury"})["report"]

    assert report.startswith("# Bill of Rights\n\n10 sections, 462 words.\n\nAsked: trial by jury\n")
    assert "Found in: Amendment VII, Amendment VI, Amendment V.\n" in report
    assert "## Amendment VIII\n16 words; excessive, bail, required.\n> Excessive bail" in report


async def test_the_report_is_the_same_every_time() -> None:
    assert (await research.ainvoke({}))["report"] == research.invoke({})["report"]


def test_a_small_expense_is_booked_without_asking(office: Any) -> None:
    ended = office.invoke({"expense": {**DESK, "amount_cents": 100_00}}, THREAD)

    assert ended["status"] == "booked"
    assert "__interrupt__" not in ended


def test_a_large_expense_waits_and_is_booked_after_a_yes(office: Any) -> None:
    waiting = office.invoke({"expense": DESK}, THREAD)
    ended = office.invoke(Command(resume={"approved": True}), THREAD)

    assert waiting["__interrupt__"][0].value["expense"] == DESK
    assert (ended["status"], ended["booking"]["amount_cents"]) == ("booked", 120_000)


def test_a_no_refuses_the_expense_and_keeps_the_note(office: Any) -> None:
    office.invoke({"expense": DESK}, THREAD)
    ended = office.invoke(Command(resume={"approved": False, "note": "too dear"}), THREAD)

    assert (ended["status"], ended["reviews"][0]["note"]) == ("refused", "too dear")
    assert "booking" not in ended


def test_a_correction_is_what_is_booked(office: Any) -> None:
    office.invoke({"expense": DESK}, THREAD)
    ended = office.invoke(Command(resume={"approved": True, "edit": {"amount_cents": 90_000}}), THREAD)

    assert ended["expense"] == {**DESK, "amount_cents": 90_000}
    assert ended["booking"]["amount_cents"] == 90_000


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("yes", "approved: true or false"),
        ({"approved": "true"}, "approved: true or false"),
        ({"approved": True, "edits": {}}, "unknown fields: edits"),
        ({"approved": True, "note": 3}, "note is a text"),
        ({"approved": True, "edit": {"iban": "x"}}, "no 'iban'"),
        ({"approved": True, "edit": {"amount_cents": "90"}}, "not of type int"),
        ({"approved": True, "edit": {"amount_cents": -1}}, "above 0"),
    ],
)
def test_an_answer_that_cannot_be_read_is_asked_for_again(office: Any, answer: object, problem: str) -> None:
    office.invoke({"expense": DESK}, THREAD)

    again = office.invoke(Command(resume=answer), THREAD)
    ended = office.invoke(Command(resume={"approved": True}), THREAD)

    assert problem in again["__interrupt__"][0].value["problem"]
    assert (ended["status"], ended["expense"], len(ended["reviews"])) == ("booked", DESK, 1)


def test_an_expense_that_nobody_could_book_is_refused(office: Any) -> None:
    ended = office.invoke({"expense": {**DESK, "amount_cents": 0}}, THREAD)

    assert (ended["status"], ended["problem"]) == ("refused", "amount_cents is not a whole number above 0.")


async def test_twelve_steps_run_in_order_each_on_the_result_of_the_one_before() -> None:
    asked: Any = {"delay_seconds": 0, "seed": "abc"}

    for ended in (twelve_steps.invoke(asked), await twelve_steps.ainvoke(asked)):
        assert ended["log"] == list(NAMES)
        assert ended["digest"] == expected_digest("abc")


def test_the_digest_tells_a_step_that_was_left_out_or_done_twice() -> None:
    digests = {expected_digest("abc"), expected_digest("abd"), expected_digest()}
    assert len(digests) == 3


@pytest.mark.parametrize("config", ["langgraph.json", "benchmarks/langgraph.json"])
def test_every_graph_that_a_langgraph_json_names_is_there(config: str) -> None:
    path = ROOT / config
    served = json.loads(path.read_text("utf-8"))["graphs"]
    assert served

    for entry in served.values():
        file, name = (entry["path"] if isinstance(entry, dict) else entry).rsplit(":", 1)
        spec = importlib.util.spec_from_file_location("served", path.parent / file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert isinstance(getattr(module, name), Pregel)
