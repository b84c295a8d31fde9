"""An expense that waits for a human: small ones are booked at once, others stop at `interrupt()` until someone answers.

The answer is what the run is resumed with: {"approved": true}, {"approved": false, "note": "..."} or a correction,
{"approved": true, "edit": {"amount_cents": 90000}}. An answer that cannot be read is asked for again, with the reason.
"""

import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

#: Up to this an expense needs nobody's yes.
FREE_CENTS = 100_00

EDITABLE = {"payee": str, "purpose": str, "amount_cents": int}


class Expense(TypedDict):
    payee: str
    purpose: str
    amount_cents: int


class Review(TypedDict):
    approved: bool
    note: str
    edit: dict[str, Any]


class Booking(TypedDict):
    """key: the same at every attempt of the node. What pays for real hands it on, and so pays once."""

    key: str
    payee: str
    amount_cents: int


class Approval(TypedDict, total=False):
    expense: Expense
    problem: str
    reviews: Annotated[list[Review], operator.add]
    status: Literal["booked", "refused"]
    booking: Booking


class BadAnswer(ValueError):
    """What a reviewer answered cannot be read; the sentence is shown to the reviewer."""


def check(state: Approval) -> Command[Literal["review", "book", "refuse"]]:
    expense = state["expense"]
    problem = find_problem(expense)
    if problem:
        return Command(goto="refuse", update={"problem": problem})
    return Command(goto="book" if expense["amount_cents"] <= FREE_CENTS else "review")


def review(state: Approval) -> Command[Literal["review", "book", "refuse"]]:
    answer = interrupt(
        {
            "question": "May this expense be booked?",
            "expense": state["expense"],
            "answers": {"approved": "true or false", "note": "optional", "edit": f"optional: {', '.join(EDITABLE)}"},
            "problem": state.get("problem", ""),
        }
    )
    try:
        read = parse_answer(answer)
        expense = apply_edit(state["expense"], read["edit"])
    except BadAnswer as error:
        return Command(goto="review", update={"problem": str(error)})
    update = {"reviews": [read], "expense": expense, "problem": ""}
    return Command(goto="book" if read["approved"] else "refuse", update=update)


def book(state: Approval, runtime: Runtime) -> Approval:
    if runtime.execution_info is None:  # only where a node function is called outside of any graph
        raise RuntimeError("book runs inside a graph: it needs the key of its execution.")
    expense = state["expense"]
    key = runtime.execution_info.task_id
    return {
        "status": "booked",
        "booking": Booking(key=key, payee=expense["payee"], amount_cents=expense["amount_cents"]),
    }


def refuse(state: Approval) -> Approval:
    return {"status": "refused"}


def find_problem(expense: Mapping[str, Any]) -> str:
    """Why an expense, as a client sent it, cannot be booked by anyone; "" when it can."""
    if not expense.get("payee"):
        return "The expense names no payee."
    amount = expense.get("amount_cents")
    if not isinstance(amount, int) or isinstance(amount, bool) or amount <= 0:
        return "amount_cents is not a whole number above 0."
    return ""


def parse_answer(answer: object) -> Review:
    """Shape: {approved: bool, note?: str, edit?: {payee?, purpose?, amount_cents?}}. Raises BadAnswer."""
    if not isinstance(answer, dict) or not isinstance(answer.get("approved"), bool):
        raise BadAnswer("The answer needs approved: true or false.")
    unknown = answer.keys() - {"approved", "note", "edit"}
    if unknown:
        raise BadAnswer(f"The answer has unknown fields: {', '.join(sorted(map(str, unknown)))}.")
    note, edit = answer.get("note", ""), answer.get("edit", {})
    if not isinstance(note, str) or not isinstance(edit, dict):
        raise BadAnswer("note is a text, edit is an object.")
    return Review(approved=answer["approved"], note=note, edit=edit)


def apply_edit(expense: Expense, edit: dict[str, Any]) -> Expense:
    """The expense as the reviewer corrected it. Raises BadAnswer."""
    for name, value in edit.items():
        if name not in EDITABLE:
            raise BadAnswer(f"An expense has no {name!r}; it can be edited in {', '.join(EDITABLE)}.")
        if not isinstance(value, EDITABLE[name]) or isinstance(value, bool):
            raise BadAnswer(f"{name} is not of type {EDITABLE[name].__name__}.")
    edited = Expense(**{**expense, **edit})  # type: ignore[typeddict-item]  # checked above
    if problem := find_problem(edited):
        raise BadAnswer(problem)
    return edited


builder = StateGraph(Approval)
builder.add_node("check", check)
builder.add_node("review", review)
builder.add_node("book", book)
builder.add_node("refuse", refuse)
builder.add_edge(START, "check")
builder.add_edge("book", END)
builder.add_edge("refuse", END)

graph = builder.compile(name="approval")
