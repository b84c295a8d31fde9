"""Map-reduce over a text: split it, read every section beside the others, write a report.

The fan-out is LangGraph's Send: each section is a node execution of its own, on whichever worker is free. Reading is
plain text analysis, so that the report of a text and a question is the same every time.
"""

import operator
from collections import Counter
from typing import Annotated

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from examples import library

TERMS_PER_SECTION = 3


class Note(TypedDict):
    place: int
    heading: str
    words: int
    terms: list[str]
    sentence: str
    hits: int


class Research(TypedDict, total=False):
    """title: which text; question: what to look for, or nothing."""

    title: str
    question: str
    headings: list[str]
    notes: Annotated[list[Note], operator.add]
    report: str


class Reading(TypedDict):
    title: str
    place: int
    question: str


def split(state: Research) -> Research:
    text = library.get_text(state.get("title") or "Declaration of Independence")
    return {"title": text.title, "headings": [section.heading for section in text.sections]}


def assign(state: Research) -> list[Send]:
    question = state.get("question", "")
    places = range(len(state["headings"]))
    return [Send("read_section", Reading(title=state["title"], place=place, question=question)) for place in places]


def read_section(state: Reading) -> Research:
    section = library.get_text(state["title"]).sections[state["place"]]
    asked = set(library.telling_words(state["question"]))
    counted = Counter(library.telling_words(section.text))
    # By frequency, then by first use: Counter keeps the order in which words came.
    terms = [word for word, _ in counted.most_common(TERMS_PER_SECTION)]
    wanted = asked or set(terms)
    sentence = max(library.sentences(section.text), key=lambda each: len(wanted & set(library.words(each))))
    note = Note(
        place=state["place"],
        heading=section.heading,
        words=len(library.words(section.text)),
        terms=terms,
        sentence=sentence,
        hits=sum(counted[word] for word in asked),
    )
    return {"notes": [note]}


def write_report(state: Research) -> Research:
    notes = sorted(state["notes"], key=lambda note: note["place"])
    question = state.get("question", "")
    lines = [f"# {state['title']}", "", f"{len(notes)} sections, {sum(note['words'] for note in notes)} words."]
    if question:
        hits = [note["heading"] for note in sorted(notes, key=lambda note: -note["hits"]) if note["hits"]]
        lines += ["", f"Asked: {question}", f"Found in: {', '.join(hits) or 'no section'}."]
    for note in notes:
        lines += [
            "",
            f"## {note['heading']}",
            f"{note['words']} words; {', '.join(note['terms'])}.",
            f"> {note['sentence']}",
        ]
    return {"report": "\n".join(lines) + "\n"}


builder = StateGraph(Research)
builder.add_node("split", split)
builder.add_node("read_section", read_section, input_schema=Reading)
builder.add_node("write_report", write_report)
builder.add_edge(START, "split")
builder.add_conditional_edges("split", assign, ["read_section"])
builder.add_edge("read_section", "write_report")
builder.add_edge("write_report", END)

graph = builder.compile(name="research")
